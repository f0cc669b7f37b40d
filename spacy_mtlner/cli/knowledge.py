"""`python -m spacy mtlner knowledge`: known entities of the types, for `seq2seq_ner`."""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from spacy.kb import InMemoryLookupKB
from spacy.vocab import Vocab
from wasabi import msg

from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.cli.options import FormatName, Lang, SpansKey
from spacy_mtlner.entities import DEFAULT_KEY, read_entities
from spacy_mtlner.formats import Report, read_docs
from spacy_mtlner.formats.base import read_lines, replacing
from spacy_mtlner.formats.convert import Job, Settings, make_tokenizer, read_sources
from spacy_mtlner.formats.files import AUTO, find_sources
from spacy_mtlner.pipeline.knowledge import (
    Knowledge,
    count_entities,
    read_kb,
    read_knowledge,
    write_knowledge,
)

LIST_SUFFIXES = (".txt", ".tsv")
_N_SHOWN = 8


class Source(str, Enum):
    """What known entities are read from."""

    corpus = "corpus"
    wordlist = "wordlist"
    kb = "kb"


def knowledge_cli(
    source_path: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="corpus: a corpus file or folder; wordlist: JSON lines of type, name and "
            "frequency, or *.txt and *.tsv of a name, a tab and a frequency, whose types are the "
            "names of the files; kb: the folder of a spaCy InMemoryLookupKB",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="JSON lines to write: type, name, frequency")
    ],
    source: Annotated[Source, typer.Option("--from", help="What INPUT is")] = Source.corpus,
    types: Annotated[
        Path | None,
        typer.Option(
            "--types",
            "-t",
            help='kb: JSON {"entity id": "type"}; wordlist: JSON {"file name": "type"}',
        ),
    ] = None,
    min_frequency: Annotated[
        float, typer.Option("--min-frequency", "-n", min=0, help="Leave out rarer names")
    ] = 0.0,
    spans_key: SpansKey = DEFAULT_KEY,
    format_name: FormatName = AUTO,
    lang: Lang = None,
) -> None:
    """
    Write the known entities of each type with their frequencies. From a corpus it must be the
    training part alone: what is known of test texts' entities makes their scores worthless.
    """
    report = Report()
    try:
        if source is Source.corpus:
            knowledge = _read_corpus(source_path, spans_key, format_name, lang, report)
        elif source is Source.wordlist:
            knowledge = _read_lists(source_path, _read_types(types), report)
        else:
            if types is None:
                raise ValueError(
                    'A knowledge base has no types: give --types, JSON {"entity id": "type"}.'
                )
            knowledge = _read_kb(source_path, _read_types(types))
        knowledge = {
            label: {name: value for name, value in names.items() if value >= min_frequency}
            for label, names in knowledge.items()
        }
        n_names = sum(map(len, knowledge.values()))
        if n_names == 0:
            rare = f" of a frequency of {min_frequency:g} or more" if min_frequency else ""
            raise ValueError(f"{source_path} has no known entities{rare}.")
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as path:
            write_knowledge(knowledge, path)
    except (ImportError, OSError, ValueError) as err:
        msg.fail("There are no known entities", str(err), exits=1)
    print_tallies(report)
    counts = ", ".join(f"{label}: {len(names)}" for label, names in sorted(knowledge.items()))
    msg.good(f"Wrote {n_names} known entities: {output}", counts)


def _read_corpus(
    path: Path, key: str, format_name: str, lang: str | None, report: Report
) -> Knowledge:
    settings = Settings(lang=lang, spans_key=key)
    job = Job(path, "spacy", tuple(find_sources(path, format_name, report)))
    make_doc = make_tokenizer([job], settings)
    records = read_sources(job.sources, settings, make_doc, report)
    docs = read_docs(records, make_doc, report, key=key)
    return count_entities((doc, read_entities(doc, key)) for doc in docs)


def _read_types(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        types = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as err:
        raise ValueError(f"{path} is no JSON: {err}") from None
    if not isinstance(types, dict) or not all(isinstance(v, str) and v for v in types.values()):
        raise ValueError(f"{path} must be a JSON object of names and types.")
    return types


def _read_kb(path: Path, types: dict[str, str]) -> Knowledge:
    if not (path / "contents").exists():
        raise ValueError(f"{path} is no folder of a saved InMemoryLookupKB.")
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=1)
    kb.from_disk(path)
    ids = kb.get_entity_strings()
    untyped = sorted(set(ids) - types.keys())
    if untyped:
        title = f"Entities that --types gives no type, left out: {len(untyped)} of {len(ids)}"
        msg.warn(title, _join_some(untyped))
    return read_kb(kb, types)


def _read_lists(path: Path, types: dict[str, str], report: Report) -> Knowledge:
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", *LIST_SUFFIXES))
    lists = [part for part in paths if part.suffix in LIST_SUFFIXES]
    unused = sorted(types.keys() - {name for part in lists for name in (part.name, part.stem)})
    if unused:
        title = f"Names in --types that no word list in {path} has: {len(unused)}"
        msg.warn(title, _join_some(unused))
    found: Knowledge = {}
    for part in paths:
        if part.suffix in LIST_SUFFIXES:
            label = types.get(part.name, types.get(part.stem, part.stem))
            items = [(label, *item) for item in _read_list(part, report)]
        else:
            items = [
                (label, name, value)
                for label, names in read_knowledge(part).items()
                for name, value in names.items()
            ]
        for label, name, value in items:
            names = found.setdefault(label, {})
            names[name] = names.get(name, 0.0) + value
    return found


def _join_some(names: list[str]) -> str:
    return f"{', '.join(names[:_N_SHOWN])}{', ...' if len(names) > _N_SHOWN else ''}"


def _read_list(path: Path, report: Report) -> Iterator[tuple[str, float]]:
    """Names and frequencies of lines `name<TAB>frequency`; one without counts as 1."""
    for number, line in read_lines(path, report):
        name, *rest = (cell.strip() for cell in line.split("\t"))
        if not name:
            continue
        try:
            value = float(rest[0]) if rest and rest[0] else 1.0
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {rest[0]!r} is no frequency. Lines must be a name, "
                f"and a tab and a number if need be."
            ) from None
        if not 0 <= value < float("inf"):
            raise ValueError(f"{path}, line {number}: a frequency cannot be {rest[0]}.")
        if value:
            yield name, value
