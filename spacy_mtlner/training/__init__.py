"""Corpora of several tasks, sample weights and pseudo-labels."""
