"""Gold boundaries as candidates: the protocol of entity typing."""

from collections.abc import Callable, Iterable, Iterator

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mtlner.entities import Entity, copy_tokens, read_ents, read_fragments, write_entities

CANDIDATE = "candidate"  # The label of candidates, which tells nothing.


def make_gold_candidates(
    corpus: Callable[[Language], Iterable[Example]], spans_key: str, candidates_key: str
) -> Callable[[Language], Iterator[Example]]:
    """Registered as `spacy_mtlner.GoldCandidates.v1`: a reader whose predicted docs hold where the
    gold entities are, and nothing of their labels. They have the tokens of the gold docs, so that
    every boundary can be given.

    corpus (Callable[[Language], Iterable[Example]]): The reader whose examples are passed on.
    spans_key (str): Spans key of the gold entities; those of a doc without it are in `doc.ents`.
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
            yield give_candidates(nlp, example.reference, spans_key, candidates_key)

    return read


def give_candidates(nlp: Language, reference: Doc, spans_key: str, candidates_key: str) -> Example:
    """Put a doc of the same tokens, with the gold entities' fragments as candidates, beside an
    annotated one.

    nlp (Language): The pipeline.
    reference (Doc): The annotated doc.
    spans_key (str): Spans key of the gold entities; those of a doc without it are in `doc.ents`.
    candidates_key (str): Spans key of the candidates on the predicted doc.
    RETURNS (Example): Both.
    """
    predicted = copy_tokens(reference, nlp.vocab)
    if spans_key in reference.spans:
        places = read_fragments(reference, spans_key)
    else:
        places = [entity.fragments for entity in read_ents(reference)]
    candidates = [Entity(CANDIDATE, fragments) for fragments in places]
    write_entities(predicted, candidates, candidates_key)
    return Example(predicted, reference)
