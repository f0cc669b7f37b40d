"""Entities to training targets and back: pure functions, one file per representation."""
