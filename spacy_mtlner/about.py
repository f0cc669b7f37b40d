"""The package's version, readable without importing spaCy or torch."""

__version__ = "0.1.0"
