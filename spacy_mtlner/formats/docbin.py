"""spaCy's binary format, `.spacy`: docs with tokens, entities in `doc.spans` or `doc.ents`."""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Literal, get_args

import numpy
import srsly
from spacy.attrs import IDS
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from srsly.msgpack import msgpack_decoders, msgpack_encoders

from spacy_mtlner.entities import (
    DEFAULT_KEY,
    find_missing,
    read_entities,
    read_ents,
    read_unknown,
    write_unknown,
)
from spacy_mtlner.formats.base import CorpusError, Record, Report, open_binary
from spacy_mtlner.formats.docs import make_doc_record, read_docs

GoldSource = Literal["auto", "spans", "ents"]

# The token attributes that are keys of strings, of those that a DocBin keeps.
_STRING_NAMES = ("ORTH", "NORM", "TAG", "DEP", "ENT_TYPE", "ENT_KB_ID", "ENT_ID", "LEMMA", "MORPH")
_STRING_ATTRS = frozenset(IDS[name] for name in _STRING_NAMES)
_CHUNK_SIZE = 256
_SPOOL_SIZE = 2**22
_COPY_SIZE = 2**20


def read_docbin(
    path: Path,
    report: Report,
    *,
    input_key: str = DEFAULT_KEY,
    gold: GoldSource = "auto",
    intact: bool = False,
) -> Iterator[Record]:
    """Read a `.spacy` file. A doc without annotation is skipped; in one that is annotated in part,
    the other tokens are unknown.

    path (Path): The file.
    report (Report): Counts what is skipped, repaired and ignored; a doc's number is its "line".
    input_key (str): The spans key of the entities.
    gold (GoldSource): "spans" for `doc.spans[input_key]`, "ents" for `doc.ents`, "auto" for the
        spans if any doc of the file has the key, else the ents.
    intact (bool): Leave the docs as they are, for an output that is to hold the same docs: those
        without annotation are records without entities.
    YIELDS (Record): One record per doc, which keeps the doc.
    RAISES (CorpusError): If the file is not of this format, no doc of it is annotated, or there is
        no such source of gold.
    """
    if gold not in get_args(GoldSource):
        hint = f"Choose one of: {', '.join(get_args(GoldSource))}."
        raise CorpusError(path, None, f"Gold cannot be read from {gold!r}.", hint)
    doc_bin = _load(path)
    report.bytes_read += path.stat().st_size
    with _restoring(path, None):
        keys = _span_keys(doc_bin)
    use_spans = gold == "spans" or (gold == "auto" and input_key in keys)
    n_annotated = 0
    for number, doc in enumerate(_get_docs(doc_bin, path, Vocab()), start=1):
        with _restoring(path, number):
            is_annotated = input_key in doc.spans if use_spans else doc.has_annotation("ENT_IOB")
            entities = read_entities(doc, input_key) if use_spans else read_ents(doc)
            unknown = read_unknown(doc, input_key) if use_spans else find_missing(doc)
        if not (is_annotated or intact):
            report.skip("doc without annotation", path, number)
            continue
        n_annotated += is_annotated
        if use_spans and not intact:
            _count_ignored(doc, input_key, path, number, report)
            # The record has them now, and may be written under another key.
            del doc.spans[input_key]
            write_unknown(doc, (), input_key)
        with _restoring(path, number):
            record = make_doc_record(doc, entities, path, number, report, unknown=unknown)
        yield record
    if not n_annotated and len(doc_bin):
        source = f"spans[{input_key!r}]" if use_spans or gold == "auto" else "ents"
        found = ", ".join(sorted(keys)) or "none"
        hint = f"Spans keys there: {found}. Name one, with --input-key or --spans-key."
        raise CorpusError(path, None, f"No doc is annotated in its {source}.", hint)


def load_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Load the docs of a `.spacy` file, annotated or not.

    path (Path): The file.
    vocab (Vocab): The docs' vocabulary.
    YIELDS (Doc): The docs.
    RAISES (CorpusError): If the file is not of this format.
    """
    yield from _get_docs(_load(path), path, vocab)


@contextmanager
def _restoring(path: Path, number: int | None) -> Iterator[None]:
    """Within this context, whatever spaCy comes upon in a broken file is an error of that file."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as err:
        what = "file" if number is None else "doc"
        message = f"The {what} cannot be restored ({type(err).__name__}: {err})."
        raise CorpusError(path, number, message) from None


def _load(path: Path) -> DocBin:
    with open_binary(path) as file:
        content = file.read()
    try:
        return DocBin(store_user_data=True).from_bytes(content)
    except Exception as err:  # msgpack and spaCy raise what they come upon.
        raise CorpusError(path, None, f"Not a .spacy file ({type(err).__name__}).") from None


def _get_docs(doc_bin: DocBin, path: Path, vocab: Vocab) -> Iterator[Doc]:
    chunk: list[Doc] = []
    with _restoring(path, None):
        docs = doc_bin.get_docs(vocab)
        n_docs = len(doc_bin)
    for start in range(0, n_docs, _CHUNK_SIZE):
        try:
            with _found_once(msgpack_decoders):
                chunk.extend(islice(docs, _CHUNK_SIZE))
        except Exception as err:
            with _restoring(path, start + len(chunk) + 1):
                raise err
        yield from chunk
        chunk.clear()


def _span_keys(doc_bin: DocBin) -> set[str]:
    """The spans keys of the docs, found without restoring the docs."""
    keys: set[str] = set()
    with _found_once(msgpack_decoders):
        for packed in set(doc_bin.span_groups):
            groups = srsly.msgpack_loads(packed) if packed else []
            if isinstance(groups, dict):
                keys.update(key for names in groups.values() for key in names)
            else:  # As spaCy wrote them before 3.3.
                keys.update(srsly.msgpack_loads(group)["name"] for group in groups)
    return keys


def _count_ignored(doc: Doc, key: str, path: Path, number: int, report: Report) -> None:
    """Count what a record does not take over from the spans of an entity."""
    group = doc.spans[key]
    scores = group.attrs.get("scores")
    if scores is not None and any(score != 1 for score in scores):
        report.ignore("scores of a doc's entities", path, number)
    for span in group:
        if span.kb_id:
            report.ignore("knowledge base id of a span", path, number)


def write_docbin(
    records: Iterable[Record],
    path: Path,
    report: Report,
    *,
    make_doc: Callable[[str], Doc],
    key: str = DEFAULT_KEY,
    set_ents: bool = False,
    keep_attrs: bool = False,
    intact: bool = False,
) -> None:
    """Write records to a `.spacy` file.

    Docs are packed one by one into temporary files, of which the `.spacy` file is put together in
    the end: what memory holds grows with the vocabulary alone.

    records (Iterable[Record]): The records.
    path (Path): The file.
    report (Report): Counts the records, their tokens and entities.
    make_doc (Callable[[str], Doc]): The tokenizer, as `nlp.make_doc`.
    key (str): The spans key to write to.
    set_ents (bool): Write `doc.ents` as well.
    keep_attrs (bool): Write all token attributes that a DocBin can keep, as docs need that were
        read from a `.spacy` file; otherwise only what a converted corpus has.
    intact (bool): Write the docs that the records were read from as they are.
    RAISES (CorpusError): If the tokenizer does not keep a text, or the corpus is too large for one
        file.
    """
    names = ("ENT_IOB", "ENT_TYPE") if set_ents else ()
    # An empty DocBin tells the format's version and the order of the attributes.
    header = DocBin(store_user_data=True) if keep_attrs else DocBin(names, store_user_data=True)
    with ExitStack() as stack:
        stack.enter_context(_found_once(msgpack_encoders))
        packer = _Packer(header, stack)
        docs = (
            _take_docs(records, report)
            if intact
            else read_docs(records, make_doc, report, key=key, set_ents=set_ents)
        )
        for doc in docs:
            packer.add(doc)
        try:
            packer.write(path)
        except struct.error:
            message = "The corpus is too large for one .spacy file."
            raise CorpusError(path, None, message, "Convert it in parts.") from None


def _take_docs(records: Iterable[Record], report: Report) -> Iterator[Doc]:
    for record in records:
        if record.doc is None:
            raise ValueError(f"{record.path}:{record.line}: the record was not read from a doc.")
        report.add_record(record)
        report.tokens += len(record.doc)
        yield record.doc


@contextmanager
def _found_once(registry: Any) -> Iterator[None]:
    """Within this context, srsly does not search all entry points for a registry's functions at
    every message: several are packed per doc, and the search would take most of the time.
    """
    functions = registry.get_all()
    registry.get_all = lambda: functions
    try:
        yield
    finally:
        registry.__dict__.pop("get_all", None)  # Another thread may have done so.


class _Packer:
    """Packs docs as a DocBin does, but holds neither docs nor their data in memory."""

    def __init__(self, header: DocBin, stack: ExitStack) -> None:
        self.header = header
        self.attrs: list[int | str] = [*header.attrs]
        self.n_docs = 0
        self.strings: set[str] = set()
        self.known: set[int] = set()
        self.string_columns = [i for i, a in enumerate(self.attrs) if a in _STRING_ATTRS]
        make_file = partial(SpooledTemporaryFile, max_size=_SPOOL_SIZE)
        # Arrays of all docs' tokens, and lists with an item for each doc.
        self.arrays: dict[str, Any] = {
            name: stack.enter_context(make_file()) for name in ("tokens", "spaces", "lengths")
        }
        self.lists: dict[str, Any] = {
            name: stack.enter_context(make_file())
            for name in ("cats", "flags", "span_groups", "user_data")
        }

    def add(self, doc: Doc) -> None:
        self.n_docs += 1
        tokens = doc.to_array(self.attrs).reshape(len(doc), len(self.attrs))
        self.arrays["tokens"].write(tokens.tobytes())
        self.arrays["spaces"].write(doc.to_array("SPACY").astype(bool).tobytes())
        self.arrays["lengths"].write(numpy.int32(len(doc)).tobytes())
        self.lists["cats"].write(srsly.msgpack_dumps(doc.cats))
        flags = {"has_unknown_spaces": doc.has_unknown_spaces}
        self.lists["flags"].write(srsly.msgpack_dumps(flags))
        self.lists["span_groups"].write(srsly.msgpack_dumps(doc.spans.to_bytes()))
        user_data = srsly.msgpack_dumps(doc.user_data)
        self.lists["user_data"].write(srsly.msgpack_dumps(user_data))
        keys = set(tokens[:, self.string_columns].ravel().tolist())
        for group in doc.spans.values():
            keys.update(key for span in group for key in (span.label, span.kb_id, span.id))
        new = keys - self.known
        self.known |= new
        # An id of a span need not be a string's key.
        self.strings.update(doc.vocab.strings[key] for key in new if key in doc.vocab.strings)

    def write(self, path: Path) -> None:
        """Write the file: a msgpack map of the parts, compressed."""
        pack = srsly.msgpack_dumps
        compressor = zlib.compressobj()
        with path.open("wb") as file:

            def put(data: bytes) -> None:
                file.write(compressor.compress(data))

            def put_file(part: IO[bytes]) -> None:
                part.seek(0)
                while data := part.read(_COPY_SIZE):
                    put(data)

            values = {
                "version": self.header.version,
                "attrs": self.header.attrs,
                "strings": sorted(self.strings),
            }
            put(struct.pack("B", 0x80 + len(values) + len(self.arrays) + len(self.lists)))
            for name, value in values.items():
                put(pack(name) + pack(value))
            for name, part in self.arrays.items():
                put(pack(name) + struct.pack(">BI", 0xC6, part.tell()))  # "bin 32"
                put_file(part)
            for name, part in self.lists.items():
                put(pack(name) + struct.pack(">BI", 0xDD, self.n_docs))  # "array 32"
                put_file(part)
            file.write(compressor.flush())
