"""Reports on trained pipelines."""
