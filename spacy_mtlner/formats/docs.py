"""Records to Docs and back: character offsets to tokens, and tokens to character offsets."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from spacy.tokens import Doc

from spacy_mtlner.entities import (
    DEFAULT_KEY,
    Entity,
    read_entities,
    write_entities,
    write_ents,
    write_unknown,
)
from spacy_mtlner.formats.base import (
    Annotation,
    CharEntity,
    CorpusError,
    Record,
    Report,
    make_record,
)

# In `doc.user_data`: the name of the document that a Doc is, or is a part of.
DOCUMENT_KEY = "mtlner_document"


def read_docs(
    records: Iterable[Record],
    make_doc: Callable[[str], Doc],
    report: Report,
    *,
    key: str = DEFAULT_KEY,
    set_ents: bool = False,
) -> Iterator[Doc]:
    """Make an annotated Doc of each record.

    records (Iterable[Record]): The records.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    report (Report): Counts docs, tokens and entities.
    key (str): The spans key to write to.
    set_ents (bool): Write `doc.ents` as well.
    YIELDS (Doc): The docs.
    RAISES (CorpusError): If the tokenizer does not keep a text.
    """
    for record in records:
        if record.doc is not None:
            for _ in record.doc.spans.get(key, ()):
                report.skip("span of the group that is replaced", record.path, record.line)
        doc, n_split = make_annotated_doc(make_doc, record, key=key, set_ents=set_ents)
        if n_split and record.doc is not None:
            reason = "annotation of a doc in which an entity begins or ends inside a token"
            report.skip(reason, record.path, record.line)
        report.add_record(record)
        report.tokens += len(doc)
        report.split_tokens += n_split
        if set_ents:
            report.not_in_ents += len(record.entities) - len(doc.ents)
        yield doc


def make_annotated_doc(
    make_doc: Callable[[str], Doc],
    record: Record,
    *,
    key: str = DEFAULT_KEY,
    set_ents: bool = False,
) -> tuple[Doc, int]:
    """Tokenize a record's text and write its entities to `doc.spans[key]`.

    A token is split where an entity begins or ends inside it, so that no entity is lost. A record
    that was read from a Doc keeps that Doc, with its tokens and all its other annotation. What is
    unknown stays so: in `doc.user_data`, and with `set_ents` in `doc.ents`.

    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    record (Record): The record.
    key (str): The spans key to write to. It is there even if the record has no entities.
    set_ents (bool): Write what `doc.ents` can hold of the entities as well.
    RETURNS (tuple[Doc, int]): The doc, and how many tokens of `make_doc` were split.
    RAISES (CorpusError): If the tokenizer does not keep the text.
    """
    doc = record.doc if record.doc is not None else make_doc(record.text)
    if doc.text != record.text:
        raise CorpusError(
            record.path,
            record.line,
            "The tokenizer does not keep this text.",
            "Use one that does: offsets would not fit.",
        )
    starts, ends = _token_borders(doc)
    borders = {i for entity in record.entities for fragment in entity.fragments for i in fragment}
    # A fragment has no white space at its borders, so they lie at a token's border or inside one.
    cuts = sorted(borders - starts.keys() - ends.keys())
    n_split = 0
    if cuts:
        doc, n_split = _split_tokens(doc, record.text, cuts)
        starts, ends = _token_borders(doc)
    entities = [
        Entity(label, tuple((starts[start], ends[end]) for start, end in fragments))
        for label, fragments in record.entities
    ]
    write_entities(doc, entities, key)
    # A token that was split is unknown in all its parts.
    unknown = [i for a, b in record.unknown for i in range(starts[a], ends[b])]
    write_unknown(doc, unknown, key)
    if set_ents:
        write_ents(doc, entities, overwrite=True, missing=unknown)
    if record.document is not None:
        doc.user_data[DOCUMENT_KEY] = record.document
    return doc, n_split


def make_doc_record(
    doc: Doc,
    entities: Iterable[Entity],
    path: Path,
    line: int,
    report: Report,
    *,
    unknown: Iterable[int] = (),
) -> Record:
    """Make a record of a Doc's text and entities.

    doc (Doc): The Doc, which the record keeps.
    entities (Iterable[Entity]): The entities, over the Doc's tokens.
    path (Path): The file.
    line (int): The Doc's number, counted from 1.
    report (Report): Counts what is skipped and repaired.
    unknown (Iterable[int]): The tokens of which it is unknown what they belong to.
    RETURNS (Record): The record.
    """
    annotations = [Annotation(*to_characters(doc, entity)) for entity in entities]
    document = doc.user_data.get(DOCUMENT_KEY)
    record = make_record(doc.text, annotations, path, line, report, document=document)
    places = tuple((doc[i].idx, doc[i].idx + len(doc[i])) for i in unknown)
    return replace(record, doc=doc, unknown=places)


def read_char_entities(doc: Doc, key: str = DEFAULT_KEY) -> list[CharEntity]:
    """Read the entities in `doc.spans[key]` by character offsets.

    doc (Doc): The document.
    key (str): The spans key.
    RETURNS (list[CharEntity]): The entities in stored order.
    """
    return [to_characters(doc, entity) for entity in read_entities(doc, key)]


def to_characters(doc: Doc, entity: Entity) -> CharEntity:
    """Turn token offsets into character offsets.

    doc (Doc): The document.
    entity (Entity): An entity over its tokens.
    RETURNS (CharEntity): The entity over its text.
    """
    fragments = (
        (doc[start].idx, doc[end - 1].idx + len(doc[end - 1])) for start, end in entity.fragments
    )
    return CharEntity(entity.label, tuple(fragments))


def _token_borders(doc: Doc) -> tuple[dict[int, int], dict[int, int]]:
    """The token that starts at a character; the offset behind the token that ends at one."""
    first, length = doc.to_array(["IDX", "LENGTH"]).T
    starts = {offset: i for i, offset in enumerate(first.tolist())}
    ends = {offset: i for i, offset in enumerate((first + length).tolist(), start=1)}
    return starts, ends


def _split_tokens(doc: Doc, text: str, cuts: list[int]) -> tuple[Doc, int]:
    """Split tokens at sorted character offsets inside them; also returns how many were split."""
    words: list[str] = []
    spaces: list[bool] = []
    n_split = 0
    for token in doc:
        end = token.idx + len(token)
        inner = cuts[bisect_left(cuts, token.idx) : bisect_left(cuts, end)]
        words += (text[a:b] for a, b in pairwise([token.idx, *inner, end]))
        spaces += [False] * len(inner) + [bool(token.whitespace_)]
        n_split += bool(inner)
    return Doc(doc.vocab, words=words, spaces=spaces), n_split
