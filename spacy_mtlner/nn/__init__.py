"""Neural network parts in plain torch, without spaCy or thinc."""
