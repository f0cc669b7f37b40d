"""Pseudo-labels for unlabelled text."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
from spacy.cli.train import train as spacy_train
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.pipeline.multitask_crf_ner import MultiTaskEntityRecognizer
from spacy_mtlner.training.pseudo_labels import make_pseudo_labeller
from spacy_mtlner.training.task_corpora import UNLABELLED

from .test_task_corpora import TOK2VEC, make_task_corpora, write_docs

KNOWN = ["Rome is old", "Paris is big", "we saw Rome", "nothing at all", "big old Paris"]
RAW = ["Rome is big", "we saw Paris", "qwe rtz uio", "nothing at all"]
ONLY_RAW = RAW[:3]  # The last one is in both.


@pytest.fixture(params=["crf_ner", "multitask_crf_ner"])
def nlp(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Language]:
    """A pipeline that has learned KNOWN, over a shared encoder, with RAW as unlabelled text."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": TOK2VEC})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
    config: dict[str, Any] = {"model": {"tok2vec": listener, "rnn": None}}
    if request.param == "multitask_crf_ner":
        config["tasks"] = {"mtlner": "main"}
    nlp.add_pipe(request.param, name="entities", config=config)
    docs = []
    for text in KNOWN:
        doc = nlp.make_doc(text)
        cities = [(i, i + 1) for i, word in enumerate(doc) if word.text in ("Rome", "Paris")]
        write_entities(doc, [Entity("CITY", (span,)) for span in cities])
        docs.append(doc)
    (tmp_path / "raw.txt").write_text("\n".join(RAW))
    reader = make_task_corpora(
        {
            "mtlner": {"path": write_docs(tmp_path / "known.spacy", docs), "role": "main"},
            "raw": {"path": tmp_path / "raw.txt", "role": "unlabelled"},
        }
    )
    nlp.initialize(lambda: reader(nlp)).learn_rate = 0.02
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.02
    examples = list(reader(nlp))
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    yield nlp


def unlabelled(nlp: Language) -> list[Doc]:
    (docs,) = UNLABELLED[nlp].values()
    return docs


def references(nlp: Language) -> dict[str, Any]:
    return {doc.text: doc for doc in unlabelled(nlp)}


def test_labels_what_the_model_is_sure_of(
    nlp: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(doc.spans for doc in unlabelled(nlp))
    make_pseudo_labeller("entities", start=0, min_confidence=0.0)(nlp, {"step": 0, "epoch": 0})
    docs = references(nlp)
    assert read_entities(docs["we saw Paris"]) == [Entity("CITY", ((2, 3),))]
    assert read_entities(docs["nothing at all"]) == []
    weights = {text: doc.user_data[WEIGHT] for text, doc in docs.items()}
    assert all(0 <= weight <= 1 for weight in weights.values())
    for doc in docs.values():
        predicted = nlp(doc.text)
        assert read_entities(predicted) == read_entities(doc)
    assert "pseudo-labels for 4 of 4" in capsys.readouterr().out
    # Above the least sure text, that one is skipped and loses the labels it had.
    ordered = sorted(weights, key=lambda text: weights[text])
    between = (weights[ordered[0]] + weights[ordered[1]]) / 2
    make_pseudo_labeller("entities", start=0, min_confidence=between)(nlp, {"step": 0})
    assert [text for text, doc in docs.items() if not doc.spans] == [ordered[0]]
    out = " ".join(capsys.readouterr().out.split())
    mean = sum(weights[text] for text in ordered[1:]) / 3
    assert f"for 3 of 4 unlabelled sentences, of mean confidence {mean:.2f}; 1 are below" in out


def test_labels_are_what_the_component_writes(
    nlp: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without white space at their ends, too."""
    component = nlp.get_pipe("entities")
    spaced = nlp.make_doc("we saw  Paris")
    UNLABELLED[nlp] = {"raw": [spaced]}
    sure = [[Entity("CITY", ((2, 4),))]], numpy.ones(1)
    monkeypatch.setattr(component, "predict_with_confidence", lambda docs: sure)
    make_pseudo_labeller("entities", start=0)(nlp, {"step": 0})
    assert spaced[2].is_space and read_entities(spaced) == [Entity("CITY", ((3, 4),))]


def test_batches_do_not_matter(nlp: Language) -> None:
    found = []
    for batch_size in (1, 100):
        label = make_pseudo_labeller("entities", start=0, min_confidence=0, batch_size=batch_size)
        label(nlp, {"step": 0})
        docs = references(nlp).items()
        found.append({text: (read_entities(doc), doc.user_data[WEIGHT]) for text, doc in docs})
    for text, (entities, weight) in found[0].items():
        assert found[1][text] == (entities, pytest.approx(weight, abs=1e-4))


def test_steps(nlp: Language) -> None:
    label = make_pseudo_labeller("entities", start=20, refresh=10, min_confidence=0.0)
    ran = []
    for step in range(45):
        for doc in unlabelled(nlp):
            doc.spans.clear()
        label(nlp, {"step": step, "epoch": 0})
        if any(doc.spans for doc in unlabelled(nlp)):
            ran.append(step)
    assert ran == [20, 30, 40]


def test_learns_from_its_labels(nlp: Language) -> None:
    """The references that were labelled in place are those of the training's examples."""
    losses: dict[str, float] = {}
    examples = [Example(nlp.make_doc(doc.text), doc) for doc in unlabelled(nlp)]
    nlp.update(examples, losses=losses)
    assert losses["entities"] == 0.0
    make_pseudo_labeller("entities", start=0, min_confidence=0.0)(nlp, {"step": 0})
    nlp.update(examples, losses=losses)
    assert losses["entities"] > 0.0


@pytest.mark.parametrize(
    "settings", [{"start": -1}, {"refresh": 0}, {"batch_size": 0}, {"min_confidence": 1.5}]
)
def test_settings_that_do_not_do(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        make_pseudo_labeller("entities", **settings)


def test_what_is_missing_is_named(nlp: Language) -> None:
    with pytest.raises(ValueError, match="no component 'ner', but tok2vec, entities"):
        make_pseudo_labeller("ner", start=0)(nlp, {"step": 0})
    with pytest.raises(ValueError, match="tok2vec gives no confidence"):
        make_pseudo_labeller("tok2vec", start=0)(nlp, {"step": 0})
    with pytest.raises(ValueError, match="has no unlabelled text"):
        other = spacy.blank("en")
        other.add_pipe("crf_ner")
        make_pseudo_labeller("crf_ner", start=0)(other, {"step": 0})


def test_labels_go_where_the_component_reads(nlp: Language) -> None:
    nlp.get_pipe("entities").cfg["gold_source"] = "ents"
    with pytest.raises(ValueError, match=r"learns from doc\.ents, .* set gold of"):
        make_pseudo_labeller("entities", start=0)(nlp, {"step": 0})


def test_text_of_the_dev_corpus_is_an_error(nlp: Language, tmp_path: Path) -> None:
    """Its docs are made anew at each evaluation: labels would go to them alone."""
    corpora = {
        "mtlner": {"path": tmp_path / "known.spacy", "role": "main"},
        "raw": {"path": tmp_path / "raw.txt", "role": "unlabelled"},
    }
    dev = make_task_corpora(corpora)
    list(dev(nlp))
    with pytest.raises(ValueError, match="belongs to the training corpus alone"):
        make_pseudo_labeller("entities", start=0)(nlp, {"step": 0})
    del dev
    make_pseudo_labeller("entities", start=0)(nlp, {"step": 0})
    nlp.config["training"]["dev_corpus"] = nlp.config["training"]["train_corpus"]
    with pytest.raises(ValueError, match="belongs to the training corpus alone"):
        make_pseudo_labeller("entities", start=0)(nlp, {"step": 0})


def test_nothing_is_kept_of_a_pipeline_that_is_gone(nlp: Language, tmp_path: Path) -> None:
    other = spacy.blank("en")
    reader = make_task_corpora(
        {
            "mtlner": {"path": tmp_path / "known.spacy", "role": "main"},
            "raw": {"path": tmp_path / "raw.txt", "role": "unlabelled"},
        }
    )
    list(reader(other))
    assert other in UNLABELLED
    before = len(UNLABELLED)
    del other
    gc.collect()
    assert len(UNLABELLED) == before - 1


def test_trains_on_its_labels_from_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nlp: Language
) -> None:
    """`spacy train` of the recipe: unlabelled sentences are learned from `start` on, not before."""
    other = spacy.blank("en").make_doc("Rome is old")
    write_entities(other, [Entity("ADJ", ((2, 3),))], "auxiliary")
    recipe = Path(__file__).parents[2] / "configs" / "multitask_en.cfg"
    learned: list[tuple[int, int]] = []
    read_golds = MultiTaskEntityRecognizer.read_golds

    def count(self: Any, examples: Any) -> Any:
        raw = [example for example in examples if example.reference.text in ONLY_RAW]
        learned.append((len(raw), sum("mtlner" in example.reference.spans for example in raw)))
        return read_golds(self, examples)

    monkeypatch.setattr(MultiTaskEntityRecognizer, "read_golds", count)
    auxiliary = write_docs(tmp_path / "auxiliary.spacy", [other])
    spacy_train(
        recipe,
        overrides={
            "paths.train": str(tmp_path / "known.spacy"),
            "paths.dev": str(tmp_path / "known.spacy"),
            "paths.auxiliary": str(auxiliary),
            "paths.dev_auxiliary": str(auxiliary),
            "paths.raw": str(tmp_path / "raw.txt"),
            "training.max_steps": 8,
            "training.eval_frequency": 2,
            "training.before_update.start": 5,
            "training.before_update.min_confidence": 0.0,
            "components.multitask_crf_ner.model.hidden_width": 8,
        },
    )
    steps = [labelled for seen, labelled in learned if seen == len(ONLY_RAW)]
    assert len(steps) == len(learned) >= 8
    assert steps == [0] * 5 + [len(ONLY_RAW)] * (len(steps) - 5)
