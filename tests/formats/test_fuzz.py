"""Broken input of every format: either it is read, or an error names the file and the line."""

import copy
import json
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import srsly
from spacy.cli import app
from spacy.tokens import DocBin
from typer.testing import CliRunner

import spacy_mtlner.cli  # noqa: F401
from spacy_mtlner.entities import Entity, write_entities
from spacy_mtlner.formats import READERS, CorpusError, Report, read_corpus
from spacy_mtlner.formats.convert import WRITER_SUFFIXES, Settings, plan_jobs, run_jobs
from spacy_mtlner.formats.docs import make_annotated_doc, read_char_entities
from spacy_mtlner.formats.files import AUTO

NLP = spacy.blank("en")

BRAT_TEXT = "Ada met 北京 \U0001f600 Bob\r\nin New York .\n"
BRAT = (
    "T1\tPER 0 3\tAda\nT2\tLOC 8 10;13 16\t北京 Bob\nT3\tLOC 21 29\tNew York\n"
    "R1\tknows Arg1:T1 Arg2:T2\n#1\tAnnotatorNotes T1\tsure\nA1\tNegation T1\n"
)
CBLUE = [
    {
        "text": "发热三天",
        "entities": [{"start_idx": 0, "end_idx": 1, "type": "sym", "entity": "发热"}],
    }
]
CLUENER = [
    {"text": "北京的Ada", "label": {"address": {"北京": [[0, 1]]}, "name": {"Ada": [[3, 5]]}}},
    {"text": "无", "label": {}},
]
INTERCHANGE = [
    {"text": "pain in hips\tand feet", "entities": [{"label": "ADR", "spans": [[0, 4], [17, 21]]}]},
    {"text": "😀 x", "document": "d", "entities": [{"label": "A", "spans": [[2, 3]]}]},
]
GENIA = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE set SYSTEM "gpml.dtd">
<set><article><articleinfo><bibliomisc>MEDLINE:1</bibliomisc></articleinfo>
<title><sentence>The <cons lex="(AND a_cell b_cell)" sem="(AND G#cell_type G#cell_type)"><cons
lex="a*">A</cons> and <cons lex="b*">B</cons> <cons lex="*cell">cells</cons></cons> &amp;
<cons lex="IL-2_gene" sem="G#DNA"><cons lex="IL-2" sem="G#protein">IL-2</cons> gene</cons>.
</sentence></title>
<abstract><sentence>None.</sentence></abstract></article></set>
"""


def json_lines(records: list[dict]) -> bytes:  # type: ignore[type-arg]
    return "".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records).encode()


def docbin() -> bytes:
    doc = NLP.make_doc("Ada met Bob in New York")
    write_entities(doc, [Entity("PER", ((0, 1), (2, 3))), Entity("LOC", ((4, 6),))])
    return DocBin(docs=[doc, doc], store_user_data=True).to_bytes()


# Well-formed files of each format.
SEEDS: dict[str, list[bytes]] = {
    "brat": [BRAT.encode()],
    "cluener": [json_lines(CLUENER)],
    "cmeee": [
        "首发症状为急性|||0    1    sym|||2    3    dis|||\n无|||\n".encode(),
        json.dumps(CBLUE, indent=1, ensure_ascii=False).encode(),
    ],
    "columns": [
        b"-DOCSTART-\tO\n\nAda\tB-PER\nmet\tO\n\nNew\tB-LOC\nYork\tI-LOC\n",
        "北 B-LOC\n京 E-LOC\n\n人 S-PER\n".encode(),
    ],
    "genia": [GENIA.encode()],
    "jsonl": [json_lines(INTERCHANGE)],
    "spacy": [docbin()],
}
TOKENS = [
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\n\n", b"\t", b"\t\t", b" "),
    *(b"\\ud800", b"-1", b"9" * 400, b"1e400", b"NaN", b"null", b"{}", b"[]", b"[" * 3000, b'"'),
    *(b"<", b"</cons>", b"<cons>" * 500, b"&x;", b"&#0;", b"]]>", b"<!--", b"T9\tA 5 2\n", b";"),
    *("\u2028".encode(), "\u3000".encode(), "\u0301".encode(), b"|||", b"O", b"B-", b"I-X", b"#"),
    b"x" * 100_000,
]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Break a file in up to three ways; what is compressed, mostly within."""
    if content[:1] == b"\x78" and rng.random() < 0.9:
        return zlib.compress(mutate_message(zlib.decompress(content), rng))
    for _ in range(rng.randint(1, 3)):
        content = mutate_once(content, rng)
    return content


def mutate_message(content: bytes, rng: random.Random) -> bytes:
    """Break a DocBin's message: its bytes, or one of its parts."""
    if rng.random() < 0.5:
        return mutate_once(content, rng)
    message = srsly.msgpack_loads(content)
    name = rng.choice(sorted(message))
    values = [None, 0, -1, "text", b"", b"\xff" * 7, [], [None], [[]], [{}], {}, {"a": 1}]
    broken = rng.choice([*values, copy.deepcopy(message[rng.choice(sorted(message))])])
    if isinstance(message[name], list) and message[name] and rng.random() < 0.5:
        message[name][rng.randrange(len(message[name]))] = broken
    else:
        message[name] = broken
    return srsly.msgpack_dumps(message)


def mutate_once(content: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(content))
    end = min(len(content), at + rng.choice((1, 2, 5, 40)))
    lines = content.split(b"\n")
    line = rng.randrange(len(lines))
    text = content.decode(errors="ignore")
    mutations: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + content[end:],
        lambda: content[:at] + rng.choice(TOKENS) + content[at:],
        lambda: content[:at] + rng.choice(TOKENS) + content[end:],
        lambda: content[:at] + rng.randbytes(rng.randint(1, 4)) + content[at + 1 :],
        lambda: content.replace(b"\n", b"\r"),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.replace(b" ", b"\t", rng.randint(1, 3)),
        lambda: content.replace(b"\t", b"\t\t", 1),
        lambda: b"\n".join(lines[:line] + lines[line + 1 :]),
        lambda: b"\n".join(lines[: line + 1] + lines[line:]),
        lambda: text.encode(rng.choice(("utf-16", "gb18030"))),
        lambda: text.encode("latin-1", errors="ignore"),
    ]
    return rng.choice(mutations)()


def write(name: str, content: bytes, folder: Path, rng: random.Random) -> Path:
    """Write a broken file, and return what is to be read."""
    if name != "brat":
        path = folder / "corpus"
        path.write_bytes(content)
        return path
    text = BRAT_TEXT.encode()
    (folder / "corpus.txt").write_bytes(mutate(text, rng) if rng.random() < 0.3 else text)
    (folder / "corpus.ann").write_bytes(content)
    return folder


def check(name: str, path: Path) -> str:
    """Read a file; returns the error, or an empty string if it can be read."""
    report = Report()
    try:
        for record in read_corpus(path, name, report, lang="en"):
            doc, _ = make_annotated_doc(NLP.make_doc, record)
            assert tuple(read_char_entities(doc)) == record.entities
            assert record.line >= 1
    except CorpusError as err:
        # Without a line, it is an error of the whole file.
        is_whole = name == "spacy" or any(what in str(err) for what in ("Holds no", "Is empty"))
        assert err.line is not None or is_whole, err
        assert err.line is None or err.line >= 1
        assert err.path.name.startswith("corpus") and str(err).startswith(str(err.path)), err
        return str(err)
    for tallies in (report.skipped, report.repaired, report.ignored):
        for tally in tallies.values():
            assert all(place.rpartition(":")[2].isdecimal() for place in tally.places)
    return ""


def fuzz(name: str, n: int, folder: Path) -> None:
    errors = 0
    for seed in range(n):
        rng = random.Random(seed)
        content = mutate(rng.choice(SEEDS[name]), rng)
        path = write(name, content, folder, rng)
        try:
            errors += bool(check(name, path))
        except BaseException:
            print(f"{name}, seed {seed}: {content[:300]!r}")
            raise
    assert 0 < errors < n, "some can be read, some cannot"


def test_all_formats_are_fuzzed(tmp_path: Path) -> None:
    assert SEEDS.keys() == READERS.keys()
    for name, seeds in SEEDS.items():
        for content in seeds:
            folder = tmp_path / f"{name}{seeds.index(content)}" / "corpus"
            folder.mkdir(parents=True)
            if name == "brat":
                (folder / "corpus.txt").write_bytes(BRAT_TEXT.encode())
                (folder / "corpus.ann").write_bytes(content)
                assert check(name, folder) == ""
            else:
                (folder / "corpus").write_bytes(content)
                assert check(name, folder / "corpus") == ""


@pytest.mark.parametrize("name", READERS)
def test_fuzz(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    fuzz(name, 400, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_fuzz_long(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    fuzz(name, int(os.environ.get("MTLNER_FUZZ", "10000")), folder)


@pytest.mark.parametrize("name", READERS)
def test_fuzz_conversion(name: str, tmp_path: Path) -> None:
    """With the format found out or named, to every format, in units of sentences, strictly."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    n_done = 0
    for seed in range(150):
        rng = random.Random(seed)
        path = write(name, mutate(rng.choice(SEEDS[name]), rng), folder, rng)
        writer = rng.choice(list(WRITER_SUFFIXES))
        output = tmp_path / f"out{seed}{WRITER_SUFFIXES[writer]}"
        report = Report(strict=rng.random() < 0.2)
        how = Settings(lang="en", lossy=rng.random() < 0.8, n_sents=rng.choice((None, 1, 2)))
        format_name = rng.choice((AUTO, name))
        try:
            jobs = plan_jobs(path, str(output), report, format_name=format_name, writer=writer)
            run_jobs(jobs, how, report)
            n_done += 1
        except CorpusError as err:
            assert str(err).startswith(str(err.path)), err
            assert not output.exists()
        except BaseException:
            print(f"{name}, seed {seed}, {format_name} to {writer}: {how}")
            raise
    assert n_done > 5


@pytest.mark.parametrize("name", READERS)
def test_the_command_ends_with_an_error_and_no_traceback(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    n_errors = 0
    for seed in range(25):
        rng = random.Random(seed)
        path = write(name, mutate(rng.choice(SEEDS[name]), rng), folder, rng)
        args = ["mtlner", "convert", str(path), str(tmp_path / "out.jsonl"), "-f", name, "-l", "en"]
        result = CliRunner().invoke(app, args)
        assert result.exit_code in (0, 1)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        if result.exit_code == 1:
            n_errors += 1
            assert str(folder) in "".join(result.output.split())
    assert n_errors
