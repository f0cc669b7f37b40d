"""Conversion: what becomes what, from every format to every other one."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from spacy_mtlner.entities import UNKNOWN_KEY, read_entities, read_unknown
from spacy_mtlner.formats import (
    CharEntity,
    CorpusError,
    Record,
    Report,
    make_annotated_doc,
    read_corpus,
)
from spacy_mtlner.formats.convert import WRITER_SUFFIXES, Job, Settings, plan_jobs, run_jobs
from spacy_mtlner.formats.files import Source
from spacy_mtlner.formats.jsonl import write_jsonl
from spacy_mtlner.formats.transform import Labels
from tests.formats.test_docs import records

LINE = '{"text": "Ada met Bob. So?", "entities": [{"label": "name", "spans": [[0, 3]]}]}\n'
COLUMNS = "Ada B-PER\nmet O\n"
EN = Settings(lang="en")


def convert(
    path: Path, output: object, report: Report, how: Settings, **options: Any
) -> list[Path]:
    return [*run_jobs(plan_jobs(path, str(output), report, **options), how, report)]


def targets(jobs: Sequence[Job]) -> list[tuple[str, str, list[str]]]:
    return [(str(j.target), j.writer, [s.path.name for s in j.sources]) for j in jobs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    files = {
        "train.jsonl": LINE,
        "a/example.train": COLUMNS,
        "a/example.dev": COLUMNS,
        "b/x.ann": "T1\tPER 0 3\tAda\n",
        "b/x.txt": "Ada met Bob",
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


def test_plan_of_a_file(folder: Path, tmp_path: Path) -> None:
    path, report = folder / "train.jsonl", Report()

    def plan(output: str, **options: Any) -> list[tuple[str, str, list[str]]]:
        return targets(plan_jobs(path, output, report, **options))

    assert plan("out/x.spacy") == [("out/x.spacy", "spacy", ["train.jsonl"])]
    assert plan("out/x.conll") == [("out/x.conll", "columns", ["train.jsonl"])]
    assert plan("out/x.txt", writer="columns") == [("out/x.txt", "columns", ["train.jsonl"])]
    assert plan("out/") == [("out/train.spacy", "spacy", ["train.jsonl"])]
    assert plan(f"{tmp_path}", writer="jsonl") == [
        (f"{tmp_path}/train.jsonl", "jsonl", ["train.jsonl"])
    ]
    assert plan("out/", writer="brat") == [("out", "brat", ["train.jsonl"])]


def test_plan_of_a_folder(folder: Path) -> None:
    assert targets(plan_jobs(folder, "out/", Report())) == [
        ("out/train.spacy", "spacy", ["train.jsonl"]),
        ("out/a/example.dev.spacy", "spacy", ["example.dev"]),
        ("out/a/example.train.spacy", "spacy", ["example.train"]),
        ("out/b.spacy", "spacy", ["b"]),
    ]
    assert targets(plan_jobs(folder / "b", "out/", Report())) == [("out/b.spacy", "spacy", ["b"])]
    (job,) = plan_jobs(folder / "a", "out.jsonl", Report())
    assert job.target == Path("out.jsonl") and len(job.sources) == 2
    assert [job.target for job in plan_jobs(folder / "a", "out", Report(), writer="brat")] == [
        Path("out/example.dev"),
        Path("out/example.train"),
    ]


@pytest.mark.parametrize(
    "output, options, message",
    [
        ("out.doc", {}, r"out\.doc: The output's name does not tell its format"),
        (
            "out.spacy",
            {"format_name": "docx"},
            r"There is no format 'docx'\. Choose one of: auto, b",
        ),
        ("out.spacy", {"writer": "genia"}, r"'genia' cannot be written\. Choose one of: spacy"),
        ("{}/train.jsonl", {}, "The output is the input, too"),
        ("{}", {"writer": "brat", "format_name": "jsonl"}, "is a folder that is not empty"),
    ],
)
def test_plans_that_cannot_be(
    folder: Path, output: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        plan_jobs(folder / "train.jsonl", output.format(folder), Report(), **options)


def test_outputs_of_one_name(folder: Path) -> None:
    (folder / "train.conll").write_text(COLUMNS)
    with pytest.raises(CorpusError, match=r"train\.conll and .*train\.jsonl would both become"):
        plan_jobs(folder, "out/", Report())


def test_a_folder_to_one_file(folder: Path, tmp_path: Path) -> None:
    report = Report()
    run_jobs(plan_jobs(folder, f"{tmp_path}/all.spacy", report), EN, report)
    docs = list(DocBin().from_disk(tmp_path / "all.spacy").get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == ["Ada met Bob. So?", "Ada met", "Ada met", "Ada met Bob"]
    assert report.docs == 4 and report.entities == {"name": 1, "PER": 3}
    assert report.bytes_read == sum(path.stat().st_size for path in folder.rglob("*.*"))


def test_settings(folder: Path, tmp_path: Path) -> None:
    report = Report()
    how = replace(EN, spans_key="task", set_ents=True, n_sents=1, labels=Labels.parse(["name=PER"]))
    (path,) = convert(folder / "train.jsonl", tmp_path / "x.spacy", report, how)
    docs = list(DocBin(store_user_data=True).from_disk(path).get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == ["Ada met Bob.", "So?"]
    assert [e.label for e in read_entities(docs[0], "task")] == ["PER"]
    assert [ent.label_ for ent in docs[0].ents] == ["PER"]
    assert report.labels_read == {"name"}
    (path,) = convert(path, tmp_path / "y.jsonl", report, Settings(options={"input_key": "task"}))
    found = list(read_corpus(path, "jsonl", Report()))
    assert [(r.text, r.document) for r in found] == [
        ("Ada met Bob.", "train-1"),
        ("So?", "train-1"),
    ]
    columns = replace(EN, n_sents=2, options={"joiner": "_"})
    (folder / "a/example.dev").write_text("a O\n\nb O\n")
    (path,) = convert(folder / "a/example.dev", tmp_path / "z.jsonl", report, columns)
    assert [r.text for r in read_corpus(path, "jsonl", Report())] == ["a_b"]


def test_own_options_come_before_those_found_out(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("Ada B-X B-Y\n")
    how = Settings(options={"tag_columns": [2], "joiner": ""})
    (output,) = convert(path, tmp_path / "x.jsonl", Report(), how)
    (record,) = read_corpus(output, "jsonl", Report())
    assert [entity.label for entity in record.entities] == ["Y"]


@pytest.mark.parametrize(
    "name, output, how, what",
    [
        ("train.jsonl", "x.spacy", Settings(), "tokens"),
        ("train.jsonl", "x.conll", Settings(), "tokens"),
        ("train.jsonl", "x.jsonl", Settings(n_sents=1), "sentences"),
        ("a/example.dev", "x.jsonl", Settings(), "the text of columns"),
    ],
)
def test_where_the_language_is_needed(
    folder: Path, tmp_path: Path, name: str, output: str, how: Settings, what: str
) -> None:
    with pytest.raises(CorpusError, match=rf"{name}: Making {what} needs the language.*--lang"):
        convert(folder / name, tmp_path / output, Report(), how)
    convert(folder / name, tmp_path / output, Report(), replace(how, lang="en"))


def test_failures_leave_nothing_behind(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.spacy"
    output.write_bytes(b"old")
    path = folder / "train.jsonl"
    with pytest.raises(ImportError, match="No tokenizer for language 'qq'"):
        convert(path, output, Report(), Settings(lang="qq"))
    path.write_text(f"{LINE}broken")
    with pytest.raises(CorpusError, match=r"train\.jsonl:2"):
        convert(path, output, Report(), EN)
    with pytest.raises(CorpusError, match=r"train\.jsonl:2"):
        convert(path, tmp_path / "brat", Report(), EN, writer="brat")
    path.write_text("\n")
    with pytest.raises(CorpusError, match="Holds no records"):
        convert(path, output, Report(), EN, format_name="jsonl")
    assert output.read_bytes() == b"old"
    assert {*tmp_path.iterdir()} == {output, folder}


def test_nothing_else_is_removed(folder: Path, tmp_path: Path) -> None:
    source = (folder / "train.jsonl").rename(tmp_path / "x.jsonl.part")
    (tmp_path / "keep.part").mkdir()
    (tmp_path / "keep.part" / "file").touch()
    convert(source, tmp_path / "x.jsonl", Report(), EN, format_name="jsonl")
    convert(source, tmp_path / "keep", Report(), EN, format_name="jsonl", writer="brat")
    assert source.read_text() == LINE and (tmp_path / "keep.part" / "file").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("in", "x.jsonl", "x.jsonl.part", "keep", "keep.part")
    }


def test_links_and_devices_stay(folder: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(target)
    convert(folder / "train.jsonl", link, Report(), EN)
    assert link.is_symlink() and target.read_text() == LINE
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(CorpusError, match="no regular file"):
        convert(folder / "train.jsonl", tmp_path / "pipe.jsonl", Report(), EN)


def test_brat_files_are_not_overwritten(folder: Path) -> None:
    for path in (folder / "b", folder / "b/x.ann"):
        with pytest.raises(CorpusError, match="The output is the input, too"):
            plan_jobs(path, str(folder / "b/x.txt"), Report(), writer="jsonl")


def test_columns_are_found_out_where_the_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("a\tB-X\tB-Y\tO\nb\tI-X\tO\tO\n")
    report = Report()
    convert(path, tmp_path / "x.jsonl", report, EN, format_name="columns")
    assert report.entities == {"X": 1, "Y": 1}


def test_documents_of_one_name_are_told_apart(folder: Path, tmp_path: Path) -> None:
    (folder / "c").mkdir()
    for name in ("x.ann", "x.txt"):
        (folder / "c" / name).write_text((folder / "b" / name).read_text())
    (output,) = convert(folder, tmp_path / "all.jsonl", Report(), replace(EN, n_sents=1))
    found = [record.document for record in read_corpus(output, "jsonl", Report())]
    assert found[-2:] == ["b/x", "c/x"]
    convert(output, tmp_path / "all", Report(), EN, writer="brat")
    assert len([*(tmp_path / "all").glob("*.ann")]) == len(found)


def test_labels_are_counted_where_they_stand(folder: Path, tmp_path: Path) -> None:
    (folder / "b/x.ann").write_text("T1\tPER 0 3\tAda\nT2\tPER 8 11\tBob\nT3\tX 0 3\tAda\n")
    report = Report()
    how = Settings(labels=Labels.parse(drop=["X"]))
    convert(folder / "b", tmp_path / "x.jsonl", report, how)
    assert report.ignored["entity with label 'X'"].places == [f"{folder / 'b/x.ann'}:3"]


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Of "may", "be" and "-" nothing is known."""
    doc = spacy.blank("en").make_doc("Ada met Bob. Eve may be X-ray.")
    ents = [Span(doc, 0, 1, label="PER"), Span(doc, 2, 3, label="PER")]
    doc.set_ents(ents, missing=[doc[5:7], doc[8:9]], default="outside")
    assert [token.text for token in doc if token.ent_iob == 0] == ["may", "be", "-"]
    path = tmp_path / "partial.spacy"
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    return path


def load(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def unknown_words(doc: Doc, key: str) -> list[str]:
    return [doc[i].text for i in read_unknown(doc, key)]


def test_what_is_unknown_stays_so(partial: Path, tmp_path: Path) -> None:
    how = Settings(spans_key="a", set_ents=True)
    (output,) = convert(partial, tmp_path / "a.spacy", Report(), how)
    (doc,) = load(output)
    assert unknown_words(doc, "a") == ["may", "be", "-"]
    assert [token.text for token in doc if token.ent_iob == 0] == ["may", "be", "-"]
    assert [ent.text for ent in doc.ents] == ["Ada", "Bob"]
    # Under another key, in parts.
    how = Settings(spans_key="b", set_ents=True, n_sents=1, options={"input_key": "a"})
    (output,) = convert(tmp_path / "a.spacy", tmp_path / "b.spacy", Report(), how)
    first, second = load(output)
    assert [*first.spans, *second.spans] == ["b", "b"]
    assert unknown_words(first, "b") == [] and not first.user_data.get(UNKNOWN_KEY)
    assert unknown_words(second, "b") == ["may", "be", "-"]
    assert unknown_words(second, "a") == []
    assert [token.text for token in second if token.ent_iob == 0] == ["may", "be", "-"]
    # An entity is known, whatever stands beside it.
    (record,) = read_corpus(tmp_path / "a.spacy", "spacy", Report(), input_key="a")
    entity = CharEntity("X", ((18, 20),))  # "ay" of "may".
    changed = replace(record, entities=(*record.entities, entity))
    doc, _ = make_annotated_doc(spacy.blank("en").make_doc, changed, set_ents=True)
    assert unknown_words(doc, "mtlner") == ["m", "ay", "be", "-"]
    assert [ent.text for ent in doc.ents] == ["Ada", "Bob", "ay"]
    assert [token.text for token in doc if token.ent_iob == 0] == ["m", "be", "-"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.conll", "x"])
def test_other_formats_have_no_place_for_the_unknown(
    partial: Path, tmp_path: Path, name: str
) -> None:
    writer = None if "." in name else "brat"
    (job,) = plan_jobs(partial, str(tmp_path / name), Report(), writer=writer)
    with pytest.raises(CorpusError, match="cannot hold: 3 x token without annotation"):
        run_jobs([job], Settings(), Report())
    assert not (tmp_path / name).exists()
    report = Report()
    run_jobs([job], Settings(lossy=True), report)
    assert (tmp_path / name).exists() and report.entities.total() == 2


def test_groups_that_cannot_stay_are_counted(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc("Ada met Bob")
    doc.set_ents([Span(doc, 2, 3, label="OLD")])
    doc.spans["a"] = [Span(doc, 0, 1, label="A")]
    doc.spans["mtlner"] = [Span(doc, 0, 1, label="B"), Span(doc, 2, 3, label="B")]
    path = tmp_path / "x.spacy"
    DocBin(docs=[doc]).to_disk(path)
    report = Report()
    how = Settings(set_ents=True, options={"input_key": "a"})
    (output,) = convert(path, tmp_path / "y.spacy", report, how)
    assert report.skipped["span of the group that is replaced"].count == 2
    assert report.not_in_ents == 0
    (again,) = DocBin().from_disk(output).get_docs(nlp.vocab)
    assert [ent.label_ for ent in again.ents] == ["A"], "the converted entities alone"
    report = Report()
    convert(path, tmp_path / "y.jsonl", report, Settings())
    assert report.ignored["span of another group of a doc"].count == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"spans_key": ""}, "spans key is empty"),
        ({"n_sents": 0}, "n_sents must be at least 1, not 0"),
        ({"tag_scheme": "IOB"}, "--tag-scheme 'IOB'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_ents_need_an_output_that_has_them(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--ents writes doc\.ents, which"):
        convert(folder / "train.jsonl", tmp_path / "x.jsonl", Report(), Settings(set_ents=True))


def test_losses_need_consent(tmp_path: Path) -> None:
    path, output = tmp_path / "x.jsonl", tmp_path / "x.conll"
    entities = [("A", ((0, 1), (4, 5))), ("A", ((0, 5),)), ("A", ((2, 3),))]
    record = Record("a b c", tuple(CharEntity(*e) for e in entities), path, 1)
    write_jsonl([record], path, Report())
    with pytest.raises(CorpusError, match=r"x\.conll: .*cannot hold: 1 x discontinuous") as error:
        convert(path, output, Report(), EN)
    assert "1 x overlapping" in str(error.value) and "--lossy" in str(error.value)
    assert not output.exists()
    report = Report()
    convert(path, output, report, replace(EN, lossy=True))
    assert output.read_text().split() == ["a", "B-A", "b", "I-A", "c", "I-A"]
    assert sum(tally.count for tally in report.lost.values()) == 2


@pytest.mark.parametrize("writer", ["brat", "jsonl", "spacy"])
@given(written=st.lists(records(), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_formats_that_hold_all_entities(
    tmp_path_factory: pytest.TempPathFactory, writer: str, written: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    path = folder / "x.jsonl"
    write_jsonl(written, path, Report())
    output = folder / "out" / f"y{WRITER_SUFFIXES[writer]}"
    there, back = Report(strict=True), Report(strict=True)
    run_jobs([Job(output, writer, (Source(path, "jsonl"),))], EN, there)
    run_jobs([Job(folder / "z.jsonl", "jsonl", (Source(output, writer),))], Settings(), back)
    again = list(read_corpus(folder / "z.jsonl", "jsonl", Report()))
    assert [(r.text, r.entities) for r in again] == [(r.text, r.entities) for r in written]
    assert not there.lost and not there.repaired and not back.repaired


@pytest.mark.parametrize(
    "path, counts",
    [
        ("cluener/train.json", (9672, 21641, 0)),
        ("cluener/dev.json", (1076, 2330, 0)),
        ("cmeee/dev.txt", (1000, 3996, 0)),
        ("genia/genia5.dev.jsonl", (1669, 4568, 114)),
        ("litbank/brat/dev", (10, 1422, 0)),
        ("litbank/tsv/dev", (852, 1422, 0)),
        ("msra/dev.bio", (3000, 2961, 0)),
        ("ncbi_disease/devel.tsv", (923, 787, 0)),
        ("bc5cdr/devel.tsv", (4581, 9593, 0)),
        ("peoples_daily/example.dev", (2318, 3819, 0)),
        ("wnut17/wnut17train.conll", (3394, 1975, 0)),
        ("wnut17/emerging.dev.conll", (1009, 836, 0)),
    ],
)
def test_counts_of_real_corpora(
    data_dir: Path, tmp_path: Path, path: str, counts: tuple[int, int, int]
) -> None:
    report = Report()
    lang = "zh" if path.split("/")[0] in ("cluener", "msra", "peoples_daily") else "en"
    convert(data_dir / path, tmp_path / "x.jsonl", report, Settings(lang=lang))
    assert (report.docs, report.entities.total(), report.discontinuous) == counts
    assert not report.repaired
