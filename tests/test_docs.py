"""The docs tell the settings and commands that there are."""

import inspect
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import srsly
import typer
from spacy.language import Language
from typer.main import get_command

from spacy_mtlner.cli import mtlner_cli
from spacy_mtlner.evaluation.figures import FIGURES
from spacy_mtlner.formats import READERS, Record, Report, read_corpus
from spacy_mtlner.formats.convert import WRITER_SUFFIXES
from spacy_mtlner.formats.corpus import make_corpus
from spacy_mtlner.formats.detect import detect_format
from spacy_mtlner.models.crf_tagger import build_crf_tagger_v1
from spacy_mtlner.models.encoders import build_character_embed_v1, build_transformer_encoder_v1
from spacy_mtlner.models.multitask_crf import build_multitask_crf_v1
from spacy_mtlner.models.pieces import make_safe_spans
from spacy_mtlner.models.pointer_tagger import build_pointer_tagger_v1
from spacy_mtlner.models.seq2seq import build_seq2seq_v1
from spacy_mtlner.models.span_classifier import build_span_classifier_v1
from spacy_mtlner.models.transformer import (
    build_tok2vec_transformer_v1,
    build_transformer_model_v1,
)
from spacy_mtlner.training.gold_candidates import make_gold_candidates
from spacy_mtlner.training.pseudo_labels import make_pseudo_labeller
from spacy_mtlner.training.task_corpora import make_task_corpora

ROOT = Path(__file__).parent.parent
BUILDERS = {
    "spacy_mtlner.CRFTagger.v1": ("crf_ner", build_crf_tagger_v1),
    "spacy_mtlner.CharacterEmbed.v1": ("crf_ner", build_character_embed_v1),
    "spacy_mtlner.TransformerEncoder.v1": ("crf_ner", build_transformer_encoder_v1),
    "spacy_mtlner.MultiTaskCRF.v1": ("multitask_crf_ner", build_multitask_crf_v1),
    "spacy_mtlner.PointerTagger.v1": ("pointer_ner", build_pointer_tagger_v1),
    "spacy_mtlner.SpanClassifier.v1": ("span_ner", build_span_classifier_v1),
    "spacy_mtlner.Seq2Seq.v1": ("seq2seq_ner", build_seq2seq_v1),
    "spacy_mtlner.TransformerModel.v1": ("encoders", build_transformer_model_v1),
    "spacy_mtlner.Tok2VecTransformer.v1": ("encoders", build_tok2vec_transformer_v1),
    "spacy_mtlner.safe_spans.v1": ("encoders", make_safe_spans),
    "spacy_mtlner.TaskCorpora.v1": ("multitask_crf_ner", make_task_corpora),
    "spacy_mtlner.pseudo_label.v1": ("multitask_crf_ner", make_pseudo_labeller),
    "spacy_mtlner.GoldCandidates.v1": ("span_ner", make_gold_candidates),
    "spacy_mtlner.Corpus.v1": ("corpora", make_corpus),
}


def read_defaults(page: str, name: str) -> dict[str, str]:
    """Setting and default of the first table behind a title, or a name that starts a line."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    start = re.search(rf"^(## .*|`)?{re.escape(name)}", text, re.MULTILINE)
    assert start is not None
    table = text[start.end() :].split("| setting |", 1)[1].split("\n\n", 1)[0]
    header, _, *rows = (
        [cell.strip(" `") for cell in line.split("|")] for line in f"| setting |{table}".split("\n")
    )
    default = header.index("default")
    return {row[1]: row[default] for row in rows}


@pytest.mark.parametrize("name", BUILDERS)
def test_settings_of_functions(name: str) -> None:
    page, builder = BUILDERS[name]
    parameters = inspect.signature(builder).parameters.values()
    assert read_defaults(page, name) == {
        p.name: "" if p.default is p.empty else srsly.json_dumps(p.default) for p in parameters
    }


@pytest.mark.parametrize(
    "factory", ["crf_ner", "multitask_crf_ner", "pointer_ner", "seq2seq_ner", "span_ner"]
)
def test_settings_of_factories(factory: str) -> None:
    import_module(f"spacy_mtlner.pipeline.{factory}")  # Registers it.
    defaults = dict(Language.get_factory_meta(factory).default_config)
    sections = {"model": "@architectures", "suggester": "@misc", "scorer": "@scorers"}
    assert read_defaults(factory, "Settings") == {
        name: value[sections[name]] if name in sections else srsly.json_dumps(value)
        for name, value in defaults.items()
    }


def test_options_of_vectors() -> None:
    text = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--[\w-]+)` \| (?:`([\w.]+)`)? ?\|", text, re.MULTILINE)
    command = typer.main.get_command(mtlner_cli).commands["vectors"]  # type: ignore[attr-defined]
    options = [option for option in command.params if option.param_type_name == "option"]
    assert dict(rows) == {
        option.opts[0]: "" if option.required or option.default is None else str(option.default)
        for option in options
    }


def test_commands_of_the_project() -> None:
    """If this fails: python -m spacy project document --no-emoji --output docs/project.md."""
    project = srsly.read_yaml(ROOT / "project.yml")
    text = (ROOT / "docs" / "project.md").read_text(encoding="utf-8")
    for command in project["commands"]:
        assert f"| `{command['name']}` | {command['help']} |" in text
    for name, steps in project["workflows"].items():
        assert f"| `{name}` | {' &rarr; '.join(f'`{step}`' for step in steps)} |" in text
    for asset in project["assets"]:
        assert f"| `{asset['dest']}` | URL | {asset['description']} |" in text


def test_vars_of_the_encoders() -> None:
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    project = srsly.read_yaml(ROOT / "project.yml")
    (command,) = (c for c in project["commands"] if c["name"] == "encoders-compare")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text.split("A batch is")[0], re.MULTILINE))
    used = set(re.findall(r"\$\{vars\.(\w+)\}", " ".join(command["script"])))
    assert set(rows) == used - {"data"}
    for name, default in rows.items():
        if name != "encoders":
            assert default == f"`{project['vars'][name]}`"


DOCCANO = [
    {"id": 1, "text": "Ada met Bob", "label": [[0, 3, "PER"], [8, 11, "PER"]], "Comments": []},
    {"id": 2, "data": "", "text": "北京", "labels": []},
]
DOCCANO_WITH_RELATIONS = [
    {
        "id": 1,
        "text": "Ada met Bob",
        "entities": [
            {"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3},
            {"id": 8, "label": "PER", "start_offset": 8, "end_offset": 11},
        ],
        "relations": [{"id": 1, "from_id": 7, "to_id": 8, "type": "met"}],
    },
    {"id": 2, "text": "北京", "entities": [], "relations": []},
]
PRODIGY = [
    {
        "text": "Ada met Bob",
        "tokens": [{"text": "Ada", "start": 0, "end": 3, "id": 0, "ws": True}],
        "spans": [
            {"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER"},
            {"start": 8, "end": 11, "token_start": 2, "token_end": 2, "label": "PER"},
        ],
        "answer": "accept",
    },
    {"text": "no", "spans": [], "answer": "reject"},
    {"text": "北京", "spans": [], "answer": "accept"},
]


@pytest.mark.parametrize("exported", [DOCCANO, DOCCANO_WITH_RELATIONS, PRODIGY])
def test_the_recipe_for_other_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: list[dict[str, Any]]
) -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("\n### From Doccano or Prodigy\n", 1)[1]
    code = section.split("```python\n", 1)[1].split("```", 1)[0]
    lines = "\n".join(map(srsly.json_dumps, exported))
    (tmp_path / "exported.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    path = Path("corpus.jsonl")
    records = list(read_corpus(path, detect_format(path)[0], Report(strict=True)))
    assert [(r.text, [(e.label, e.fragments) for e in r.entities]) for r in records] == [
        ("Ada met Bob", [("PER", ((0, 3),)), ("PER", ((8, 11),))]),
        ("北京", []),
    ]


def read_example(tmp_path: Path, name: str) -> tuple[list[Record], Report]:
    """Read the example of a format with its reader."""
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    section = section.split("\n### ", 1)[0]
    blocks = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    path = tmp_path / "example.txt"
    path.write_text(blocks[0], encoding="utf-8")
    if len(blocks) > 1:
        path.with_suffix(".ann").write_text(blocks[1], encoding="utf-8")
    assert detect_format(path)[0] == name
    report = Report(strict=True)
    return list(read_corpus(path, name, report, lang="en")), report


@pytest.mark.parametrize(
    "name, n_records, surfaces",
    [
        ("jsonl", 3, ["Pain in my shoulders", "Pain in ... hips"]),
        ("brat", 1, ["Pain in my shoulders", "Pain in ... hips"]),
        ("columns", 1, ["Ada", "Bob"]),
        ("cluener", 3, ["Ada", "Bob", "北京", "北京"]),
        ("cmeee", 3, ["发热", "急性肝衰竭", "肝"]),
        ("genia", 1, ["CD2 ... genes", "CD25 genes", "T cells"]),
    ],
)
def test_examples_of_formats(
    tmp_path: Path, name: str, n_records: int, surfaces: list[str]
) -> None:
    records, report = read_example(tmp_path, name)
    assert len(records) == n_records and not report.repaired
    assert [
        " ... ".join(record.text[a:b] for a, b in entity.fragments)
        for record in records
        for entity in record.entities
    ] == surfaces


def test_formats_are_all_told() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\].*?\| yes \| (.*?) \|", text, re.MULTILINE)
    assert {name for name, _ in rows} == READERS.keys()
    assert {name for name, written in rows if written != "no"} == WRITER_SUFFIXES.keys()


def test_figures_and_options_of_the_analysis() -> None:
    text = (ROOT / "docs" / "analyse.md").read_text(encoding="utf-8")
    for name in FIGURES:
        assert re.search(rf"\(`{name}`[;)]", text)
    options = set(re.findall(r"^\| `(--[\w-]+)`", text, re.MULTILINE))
    command: Any = get_command(mtlner_cli)
    known = (param.opts for param in command.commands["analyse"].params)
    assert options == {name for names in known for name in names if name.startswith("--")}


def find_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's titles; repeated ones are numbered."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    anchors: set[str] = set()
    seen: Counter[str] = Counter()
    for title in re.findall(r"^#{1,6} +(.*?)[ #]*$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


def test_anchors_are_those_of_github() -> None:
    text = """# A `code_name`: what's new, and *when*?
```bash
# no title
```
## Twice
### Twice
## A - b [linked](page.md) 中文, v1.0 ##
#tag
"""
    assert find_anchors(text) == {
        "a-code_name-whats-new-and-when",
        "twice",
        "twice-1",
        "a---b-linked-中文-v10",
    }


def test_links_of_the_docs() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor:
                anchors = find_anchors(path.read_text(encoding="utf-8"))
                assert anchor in anchors, f"{page.name}: {target}"
