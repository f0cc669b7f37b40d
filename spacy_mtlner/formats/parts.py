"""Writing the parts of a corpus that is split, and finding texts that stand in two of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress, islice
from pathlib import Path

from spacy_mtlner.formats.base import CorpusError, Record, Report, Tally, replacing
from spacy_mtlner.formats.convert import (
    WRITER_SUFFIXES,
    Job,
    Settings,
    check_targets,
    make_tokenizer,
    read_sources,
    write_records,
)
from spacy_mtlner.formats.files import AUTO, find_sources
from spacy_mtlner.formats.overlap import NEAR_DUPLICATE, RunIndex
from spacy_mtlner.formats.split import Split, split_records, summarise

_CHUNK_SIZE = 256


@dataclass(frozen=True)
class Parts:
    """The parts of a corpus.

    split (Split): Which record went where, and what the parts hold.
    targets (dict[str, Path]): The parts' files, or folders for brat.
    leaks (dict[tuple[str, str], Tally]): By two parts: the texts of the second one of which half
        or more stands in the first one.
    """

    split: Split
    targets: dict[str, Path]
    leaks: dict[tuple[str, str], Tally] = field(default_factory=dict)


def split_corpus(
    input_path: Path,
    folder: Path,
    shares: Mapping[str, float],
    report: Report,
    settings: Settings,
    *,
    seed: int = 0,
    format_name: str = AUTO,
    writer: str | None = None,
) -> Parts:
    """Split a corpus, and write its parts.

    The corpus is read once for the split and once for each part: records are not kept in memory.
    Docs of `.spacy` files are written as they are.

    input_path (Path): A corpus file, or a folder of them.
    folder (Path): Where the parts are written, as `train`, `dev`, ...
    shares (Mapping[str, float]): The parts' shares of the records; "train" gets what is left.
    report (Report): Counts what the corpus holds, and what is skipped and repaired.
    settings (Settings): How the corpus is read and written.
    seed (int): Chooses among splits that are equally good.
    format_name (str): A name in `READERS`, or "auto".
    writer (Optional[str]): A name in `WRITER_SUFFIXES`. None for the corpus's own format if it is
        spacy or brat, else jsonl.
    RETURNS (Parts): The parts.
    RAISES (CorpusError): If the corpus cannot be read, or its parts not be written.
    RAISES (ValueError): If there are no such shares, or too few documents for them.
    """
    sources = tuple(find_sources(input_path, format_name, report))
    formats = {source.format for source in sources}
    if writer is None:
        writer = formats.pop() if formats in ({"spacy"}, {"brat"}) else "jsonl"
    if writer not in WRITER_SUFFIXES:
        hint = f"Choose one of: {', '.join(WRITER_SUFFIXES)}."
        raise CorpusError(folder, None, f"The format {writer!r} cannot be written.", hint)
    if writer == "spacy" and all(source.format == "spacy" for source in sources):
        settings = replace(settings, options={**settings.options, "intact": True})
    names = ["train", *(name for name, share in shares.items() if share)]
    jobs = {n: Job(folder / f"{n}{WRITER_SUFFIXES[writer]}", writer, sources) for n in names}
    check_targets([*jobs.values()])
    make_doc = make_tokenizer(jobs.values(), settings)
    records = read_sources(sources, settings, make_doc, report)
    split = split_records([summarise(record) for record in records], shares, seed=seed)
    parts = Parts(split, {name: job.target for name, job in jobs.items()})
    indexes: dict[str, RunIndex] = {}
    for name, job in jobs.items():
        # What is skipped and repaired was counted when the corpus was read first.
        again = read_sources(sources, settings, make_doc, Report())
        chosen = compress(again, [part == name for part in split.parts])
        with replacing(job.target) as path:
            watched = _find_leaks(chosen, name, indexes, parts.leaks)
            counts = Report()
            write_records(watched, path, job, settings, make_doc, counts)
        for reason, tally in counts.lost.items():
            report.lost[reason].merge(tally)
    return parts


def _find_leaks(
    records: Iterator[Record],
    name: str,
    indexes: dict[str, RunIndex],
    leaks: dict[tuple[str, str], Tally],
) -> Iterator[Record]:
    """Compare the records of a part with the parts before, and add it to them."""
    own = RunIndex()
    while chunk := [*islice(records, _CHUNK_SIZE)]:
        texts = [record.text for record in chunk]
        for other, index in indexes.items():
            for record, share in zip(chunk, index.shares(texts), strict=True):
                if share >= NEAR_DUPLICATE:
                    leaks.setdefault((other, name), Tally()).add(record.path, record.line)
        for text in texts:
            own.add(text)
        yield from chunk
    indexes[name] = own
