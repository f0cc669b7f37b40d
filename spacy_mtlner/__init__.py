"""Named entity recognition for spaCy: flat, nested and discontinuous entities, with scores."""

from spacy_mtlner.about import __version__
from spacy_mtlner.entities import Entity, read_entities, write_entities

__all__ = ["Entity", "__version__", "read_entities", "write_entities"]
