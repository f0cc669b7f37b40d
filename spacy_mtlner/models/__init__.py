"""Architectures: thinc models that join a tok2vec layer to a torch module."""
