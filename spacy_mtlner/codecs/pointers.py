"""Start and end pointers: contiguous entities of any kind, nested ones included, as positions.

The targets of figure 4 of the MTL-NER paper: for every type, which tokens begin and which ones end
an entity; beside them which start belongs to which end, and which types a token is part of.
"""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from spacy_mtlner.codecs.tags import IntArray, ranges

FloatArray = NDArray[numpy.float32]


@dataclass(frozen=True)
class PointerTargets:
    """What a batch of rows, whose tokens follow each other, has as gold.

    starts (FloatArray): Whether an entity of a type begins at a token, shape (n_tokens, n_types).
    ends (FloatArray): Whether one ends with a token, shape (n_tokens, n_types).
    spans (IntArray): First token, length less one, and type of each entity, shape (n_spans, 3).
    classes (FloatArray): A token's share in each type and, last, in none: equal shares of the types
        of the entities it is in. Shape (n_tokens, n_types + 1), each row sums up to 1.
    """

    starts: FloatArray
    ends: FloatArray
    spans: IntArray
    classes: FloatArray


def encode_pointers(spans: IntArray, n_tokens: int, n_types: int) -> PointerTargets:
    """Make the targets of a batch.

    spans (IntArray): First token, offset behind the last one, and type of each entity, over all
        tokens of the batch, shape (n_spans, 3).
    n_tokens (int): The batch's tokens.
    n_types (int): The types.
    RETURNS (PointerTargets): The targets.
    """
    first, behind, types = spans.reshape(-1, 3).T
    starts = numpy.zeros((n_tokens, n_types), dtype=numpy.float32)
    ends = numpy.zeros_like(starts)
    starts[first, types] = 1
    ends[behind - 1, types] = 1
    sizes = behind - first
    classes = numpy.zeros((n_tokens, n_types + 1), dtype=numpy.float32)
    classes[ranges(first, sizes), numpy.repeat(types, sizes)] = 1
    classes[:, -1] = classes.sum(1) == 0
    classes /= classes.sum(1, keepdims=True)
    return PointerTargets(starts, ends, numpy.stack([first, sizes - 1, types], axis=1), classes)
