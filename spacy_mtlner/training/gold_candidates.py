"""Gold boundaries as candidates: the protocol of entity typing."""

from collections.abc import Callable, Iterable, Iterator

from spacy.language import Language
from spacy.training import Example

from spacy_mtlner.entities import Entity, align_entities, read_entities, write_entities

CANDIDATE = "candidate"  # The label of candidates, which tells nothing.


def make_gold_candidates(
    corpus: Callable[[Language], Iterable[Example]], spans_key: str, candidates_key: str
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.GoldCandidates.v1`: a reader whose predicted docs hold where the
    gold entities are, and nothing of their labels.

    corpus (Callable[[Language], Iterable[Example]]): The reader whose examples are passed on.
    spans_key (str): Spans key of the gold entities.
    candidates_key (str): Spans key of the candidates on the predicted docs.
    RETURNS (Callable[[Language], Iterator[Example]]): The reader.
    RAISES (ValueError): If the keys are the same.
    """
    if spans_key == candidates_key:
        raise ValueError(
            f"spacy_mtlner.GoldCandidates.v1: candidates_key must differ from spans_key, but both "
            f"are {spans_key!r}."
        )

    def read(nlp: Language) -> Iterator[Example]:
        for example in corpus(nlp):
            gold = read_entities(example.reference, spans_key)
            aligned, _ = align_entities(example, gold)
            places = dict.fromkeys(entity.fragments for entity in aligned)
            candidates = [Entity(CANDIDATE, fragments) for fragments in places]
            write_entities(example.predicted, candidates, candidates_key)
            yield example

    return read
