"""Corpora of several tasks as one."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli._util import app
from spacy.cli.train import train as spacy_train
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.util import fix_random_seed
from typer.testing import CliRunner

from spacy_mtlner.entities import Entity, read_entities, write_entities
from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.formats.convert import Settings, plan_jobs, run_jobs
from spacy_mtlner.pipeline.gold import WEIGHT
from spacy_mtlner.training.task_corpora import UNLABELLED, TaskCorpora, make_task_corpora

EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 16,
    "attrs": ["NORM"],
    "rows": [100],
    "include_static_vectors": False,
}
TOK2VEC = {
    "@architectures": "spacy.Tok2Vec.v2",
    "embed": EMBED,
    "encode": {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": 16,
        "depth": 1,
        "window_size": 1,
        "maxout_pieces": 2,
    },
}


def make_nlp(*keys: str, max_epochs: int = 0) -> Language:
    nlp = spacy.blank("en")
    for key in keys:
        config = {"spans_key": key, "model": {"tok2vec": EMBED, "rnn": None}}
        nlp.add_pipe("crf_ner", name=f"{key}_ner", config=config)
    nlp.config["training"] = {**nlp.config["training"], "max_epochs": max_epochs}
    return nlp


def write_docs(path: Path, docs: list[Doc]) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def write_corpus(
    path: Path, texts: list[str], key: str | None = "mtlner", label: str = "X"
) -> Path:
    """Each text's first word is an entity; without a key it is one of doc.ents."""
    nlp, docs = spacy.blank("en"), []
    for text in texts:
        doc = nlp.make_doc(text)
        if key is None:
            doc.set_ents([Span(doc, 0, 1, label)])
        else:
            write_entities(doc, [Entity(label, ((0, 1),))], key)
        docs.append(doc)
    return write_docs(path, docs)


def read(corpora: dict[str, dict[str, Any]], nlp: Language, **settings: Any) -> list[Doc]:
    reader = make_task_corpora(corpora, **settings)
    return [example.reference for example in reader(nlp)]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {
        "main": write_corpus(tmp_path / "main.spacy", [f"main {i}" for i in range(8)]),
        "other": write_corpus(tmp_path / "other.spacy", [f"other {i}" for i in range(20)], None),
    }


def make_settings(paths: dict[str, Path], **other: Any) -> dict[str, dict[str, Any]]:
    return {
        "main": {"path": str(paths["main"]), "role": "main"},
        "other": {"path": paths["other"], "role": "auxiliary", **other},
    }


def test_gold_is_under_the_tasks_key(paths: dict[str, Path]) -> None:
    docs = read(make_settings(paths), make_nlp("main", "other"))
    assert len(docs) == 28
    for doc in docs:
        (key,) = doc.spans
        assert key == doc[0].text == doc.spans[key].name
        assert read_entities(doc, key) == [Entity("X", ((0, 1),))]
    assert [doc[0].text for doc in docs] != ["main"] * 8 + ["other"] * 20  # Shuffled.


def test_a_corpus_can_be_left_out(paths: dict[str, Path]) -> None:
    settings: dict[str, Any] = {**make_settings(paths), "raw": None, "other": None}
    assert {doc[0].text for doc in read(settings, make_nlp("main"))} == {"main"}


def test_order_is_the_seeds(paths: dict[str, Path]) -> None:
    nlp = make_nlp()
    orders = [
        [doc.text for doc in read(make_settings(paths), nlp, seed=seed)] for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    reader = make_task_corpora(make_settings(paths), seed=1)
    passes = [[example.reference.text for example in reader(nlp)] for _ in range(2)]
    assert passes[0] == orders[0] != passes[1]


def test_docs_with_the_key_are_taken_as_they_are(tmp_path: Path, paths: dict[str, Path]) -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc("both are annotated")
    write_entities(doc, [Entity("X", ((0, 1),))], "other")
    write_entities(doc, [], "main")
    doc.user_data[WEIGHT] = 0.5
    paths["other"] = write_docs(tmp_path / "both.spacy", [doc])
    (found,) = (doc for doc in read(make_settings(paths), nlp) if len(doc) == 3)
    assert read_entities(found, "other") == [Entity("X", ((0, 1),))]
    assert read_entities(found, "main") == [] and "main" in found.spans
    assert found.user_data[WEIGHT] == 0.5


def test_docs_without_the_key_are_unannotated_where_others_have_it(
    tmp_path: Path, paths: dict[str, Path]
) -> None:
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in ("has it", "has another")]
    write_entities(docs[0], [Entity("X", ((0, 1),))], "other")
    write_entities(docs[1], [Entity("Y", ((0, 1),))], "third")
    paths["other"] = write_docs(tmp_path / "mixed.spacy", docs)
    found = {doc.text: doc for doc in read(make_settings(paths), nlp)}
    assert list(found["has it"].spans) == ["other"]
    assert list(found["has another"].spans) == ["third"]


def test_a_folder_of_several_formats(tmp_path: Path, paths: dict[str, Path]) -> None:
    nlp = make_nlp("main", "other")
    folder = tmp_path / "folder"
    (folder / ".hidden").mkdir(parents=True)
    docs = [nlp.make_doc(text) for text in ("in a docbin", "")]
    for doc in docs:
        doc.spans["third"] = []
    write_docs(folder / "b.spacy", docs)
    write_docs(folder / ".hidden" / "b.spacy", docs)
    (folder / "a.conll").write_text("Ada B-X\n\ncolumns O\n")
    settings = make_settings({**paths, "other": folder})
    found = [doc for doc in read(settings, nlp) if "other" in doc.spans]
    assert sorted(doc.text for doc in found) == ["Ada", "columns", "in a docbin"]
    settings["other"]["spans_key"] = "third"
    with pytest.raises(CorpusError, match=r"a\.conll: Corpus 'other' has a spans_key"):
        read(settings, nlp)


@pytest.mark.parametrize("is_converted", [False, True])
def test_tokens_of_which_nothing_is_known(
    tmp_path: Path, paths: dict[str, Path], is_converted: bool
) -> None:
    """What doc.ents leaves open stays open, and in spans of another key, too."""
    nlp = make_nlp("main", "other")
    doc = nlp.make_doc("Rome may be more")
    doc.set_ents([Span(doc, 0, 1, "X")], missing=[doc[2:4]], default="outside")
    paths["other"] = write_docs(tmp_path / "missing.spacy", [doc])
    if is_converted:
        jobs = plan_jobs(paths["other"], str(tmp_path / "converted.spacy"), Report())
        (paths["other"],) = run_jobs(jobs, Settings(spans_key="converted"), Report())
    reader = make_task_corpora(make_settings(paths))
    nlp.initialize(lambda: reader(nlp))
    (example,) = (eg for eg in reader(nlp) if eg.reference[0].text == "Rome")
    gold = nlp.get_pipe("other_ner").read_gold(example)
    assert gold.unknown.tolist() == [False, False, True, True]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_must_be_weights(tmp_path: Path, paths: dict[str, Path], weight: float) -> None:
    nlp = make_nlp("main", "other")
    doc = nlp.make_doc("Rome")
    write_entities(doc, [], "other")
    doc.user_data[WEIGHT] = weight
    paths["other"] = write_docs(tmp_path / "weight.spacy", [doc])
    with pytest.raises(
        ValueError, match=r"user_data\['mtlner_weight'\] of the training doc 'Rome'"
    ):
        nlp.initialize(lambda: make_task_corpora(make_settings(paths))(nlp))


def test_corpora_that_have_nothing_in_common(tmp_path: Path, paths: dict[str, Path]) -> None:
    paths["other"] = write_corpus(tmp_path / "far.spacy", ["quite different words"])
    with pytest.warns(UserWarning, match=r"'other': the mean weight of its sentences is 0.0000"):
        read(make_settings(paths), make_nlp(), similarity="tfidf")


def test_max_epochs_may_be_a_variable(tmp_path: Path, paths: dict[str, Path]) -> None:
    nlp = make_nlp()
    nlp.config["vars"] = {"passes": -1}
    nlp.config["training"]["max_epochs"] = "${vars.passes}"
    (tmp_path / "raw.txt").write_text("text")
    raw = {"path": tmp_path / "raw.txt", "role": "unlabelled"}
    with pytest.raises(ValueError, match="'raw' is unlabelled, which does not go with max_epochs"):
        read({**make_settings(paths), "raw": raw}, nlp)


def test_only_the_text_that_is_drawn_is_registered(tmp_path: Path, paths: dict[str, Path]) -> None:
    (tmp_path / "raw.txt").write_text("\n".join(f"text {i}" for i in range(10)))
    raw = {"path": tmp_path / "raw.txt", "role": "unlabelled", "ratio": 0.5}
    nlp, reader = make_nlp(), make_task_corpora({**make_settings(paths), "raw": raw})
    with pytest.warns(UserWarning, match="'raw' has a ratio"):
        docs = [example.reference for example in reader(nlp)]
    registered = {id(doc) for doc in UNLABELLED[nlp][reader]}
    assert registered == {id(doc) for doc in docs if "text" in doc.text}
    assert len(registered) == 5


def test_tasks_of_components_that_are_disabled_meanwhile(paths: dict[str, Path]) -> None:
    """As those are that a training sources or freezes, while it initialises the others."""
    nlp = make_nlp("main", "other")
    with nlp.select_pipes(disable=["main_ner"]):
        assert len(read(make_settings(paths), nlp)) == 28
        read(make_settings(paths), nlp, similarity="encoder")  # Waits.


def test_spans_key_chooses_among_several(tmp_path: Path, paths: dict[str, Path]) -> None:
    nlp = spacy.blank("en")
    doc = nlp.make_doc("two layers")
    write_entities(doc, [Entity("X", ((0, 1),))], "coarse")
    write_entities(doc, [Entity("Y", ((0, 2),))], "fine")
    paths["other"] = write_docs(tmp_path / "two.spacy", [doc])
    with pytest.raises(
        CorpusError, match=r"two.spacy: doc 1: no spans key 'other', but 'coarse', "
    ):
        read(make_settings(paths), nlp)
    (found,) = (
        doc for doc in read(make_settings(paths, spans_key="fine"), nlp) if doc[0].text == "two"
    )
    assert read_entities(found, "other") == [Entity("Y", ((0, 2),))]
    with pytest.raises(CorpusError, match="nor 'x', which spans_key names"):
        read(make_settings(paths, spans_key="x"), nlp)


def test_reads_other_formats_and_folders(tmp_path: Path, paths: dict[str, Path]) -> None:
    line = {"text": "json here", "entities": [{"label": "X", "spans": [[0, 4]]}]}
    (tmp_path / "other.jsonl").write_text(json.dumps(line))
    settings = make_settings({**paths, "other": tmp_path / "other.jsonl"})
    docs = read(settings, make_nlp())
    assert [read_entities(doc, "other") for doc in docs if doc[0].text == "json"] == [
        [Entity("X", ((0, 1),))]
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    write_corpus(folder / "a.spacy", ["one"])
    write_corpus(folder / "b.spacy", ["two", "three"])
    assert len(read(make_settings({**paths, "other": folder}), make_nlp())) == 11


def test_limit_of_one_seed_only_adds(paths: dict[str, Path]) -> None:
    chosen = [
        {d.text for d in read(make_settings(paths, limit=limit), make_nlp()) if "other" in d.text}
        for limit in (3, 7, 100)
    ]
    assert [len(texts) for texts in chosen] == [3, 7, 20]
    assert chosen[0] < chosen[1] < chosen[2]
    assert chosen[0] != {"other 0", "other 1", "other 2"}


def test_ratio_repeats_and_draws_anew(paths: dict[str, Path]) -> None:
    nlp = make_nlp(max_epochs=-1)
    reader = make_task_corpora(make_settings(paths, ratio=2.25))
    draws = []
    for _ in range(2):
        counts = Counter(example.reference.text for example in reader(nlp))
        others = {text: n for text, n in counts.items() if "other" in text}
        assert Counter(others.values()) == {2: 15, 3: 5}
        assert counts["main 0"] == 1
        draws.append({text for text, n in others.items() if n == 3})
    assert draws[0] != draws[1]


def test_ratio_without_streaming_leaves_sentences_out(paths: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match=r"'other' has a ratio of 0.5, but"):
        docs = read(make_settings(paths, ratio=0.5), make_nlp())
    assert len(docs) == 18


def test_similar_sentences_weigh_more(tmp_path: Path, paths: dict[str, Path]) -> None:
    paths["main"] = write_corpus(tmp_path / "m.spacy", ["rain in Spain", "snow in Spain"])
    texts = ["rain in Spain again", "rain on bread", "quite different words"]
    paths["other"] = write_corpus(tmp_path / "o.spacy", texts)
    reader = make_task_corpora(make_settings(paths), similarity="tfidf")
    for _ in range(2):  # Every pass reads other docs.
        weights = {e.reference.text: e.reference.user_data.get(WEIGHT) for e in reader(make_nlp())}
        assert weights.pop("rain in Spain") is weights.pop("snow in Spain") is None
        assert weights[texts[0]] == 1.0 > weights[texts[1]] > weights[texts[2]] == 0.0
    flatter = make_task_corpora(make_settings(paths), similarity="tfidf", power=0.5)
    again = {e.reference.text: e.reference.user_data.get(WEIGHT) for e in flatter(make_nlp())}
    assert again[texts[1]] == pytest.approx(weights[texts[1]] ** 0.5)


def test_encoder_similarity_waits_for_the_encoder(paths: dict[str, Path]) -> None:
    fix_random_seed(0)
    nlp = make_nlp("main", "other")
    reader = make_task_corpora(make_settings(paths), similarity="encoder")
    assert all(WEIGHT not in example.reference.user_data for example in reader(nlp))
    nlp.initialize(lambda: reader(nlp))
    weights = [
        example.reference.user_data[WEIGHT]
        for example in reader(nlp)
        if "other" in example.reference.spans
    ]
    assert len(weights) == 20 and max(weights) == 1.0 and len(set(weights)) > 5


def test_unlabelled_texts(tmp_path: Path, paths: dict[str, Path]) -> None:
    nlp = make_nlp()
    raw = tmp_path / "raw.txt"
    raw.write_text("first text\n\n second text \n", encoding="utf-8")
    settings = make_settings(paths)
    settings["raw"] = {"path": raw, "role": "unlabelled"}
    reader = make_task_corpora(settings)
    docs = [example.reference for example in reader(nlp) if "text" in example.reference.text]
    assert sorted(doc.text for doc in docs) == ["first text", "second text"]
    assert not any(doc.spans for doc in docs)
    assert {id(doc) for doc in UNLABELLED[nlp][reader]} == {id(doc) for doc in docs}
    raw = tmp_path / "raw.jsonl"
    raw.write_text('{"text": "a"}\n{"text": ""}\n{"text": "b", "entities": []}\n')
    settings["raw"]["path"] = raw
    assert sorted(doc.text for doc in read(settings, nlp) if len(doc) == 1) == ["a", "b"]
    settings["raw"]["path"] = paths["other"]  # Whatever annotation it has.
    assert len([doc for doc in read(settings, nlp) if not doc.spans]) == 20
    raw.write_text('{"text": "a"}\n{"txt": "b"}\n')
    settings["raw"]["path"] = raw
    with pytest.raises(CorpusError, match=r"raw.jsonl:2: Raw text is a .txt file"):
        read(settings, nlp)
    with pytest.raises(ValueError, match="'raw' is unlabelled, which does not go with max_epochs"):
        read(settings, make_nlp(max_epochs=-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": {"path": None, "role": "auxiliary"}}, "corpus 'other' has no path"),
        ({"other": {"path": "x", "role": "helper"}}, "role is 'helper'; set it to one of 'main'"),
        ({"other": {"path": "x"}}, "role is None"),
        ({"other": {"path": "x", "role": "main"}}, "'main', 'other' of 'main', 'other'"),
        ({"main": {"path": "x", "role": "unlabelled"}}, "none of 'main', 'other' has"),
        (
            {"other": {"path": "x", "role": "auxiliary", "ratio": 0}},
            "ratio must be a number above 0",
        ),
        (
            {"other": {"path": "x", "role": "auxiliary", "limit": -1}},
            "limit must be a whole number",
        ),
        ({"other": {"path": "x", "role": "auxiliary", "size": 1}}, "unknown setting 'size'"),
    ],
)
def test_settings_that_do_not_do(paths: dict[str, Path], change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task_corpora({**make_settings(paths), **change})


def test_other_settings_that_do_not_do(paths: dict[str, Path]) -> None:
    settings: Any
    for settings, message in (
        ({"similarity": "bm25"}, "unknown similarity 'bm25'"),
        ({"power": 0.0}, "power and scale must be above 0"),
        ({"scale": -1.0}, "power and scale must be above 0"),
        ({"power": math.nan}, "power and scale must be above 0"),
        ({"scale": math.inf}, "power and scale must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_task_corpora(make_settings(paths), **settings)


def test_corpora_that_do_not_do(tmp_path: Path, paths: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="'other' is for a task that no component"):
        read(make_settings(paths), make_nlp("main"))
    empty = write_docs(tmp_path / "empty.spacy", [])
    with pytest.raises(CorpusError, match=r"empty.spacy: Holds no docs"):
        read(make_settings({**paths, "other": empty}), make_nlp())
    blank = write_docs(tmp_path / "blank.spacy", [spacy.blank("en").make_doc("")])
    with pytest.raises(CorpusError, match=r"blank.spacy: The auxiliary corpus 'other' is empty"):
        read(make_settings({**paths, "other": blank}), make_nlp())
    bare = write_docs(tmp_path / "bare.spacy", [spacy.blank("en").make_doc("bare text")])
    with pytest.raises(CorpusError, match=r"doc 1: .* the doc is not annotated"):
        read(make_settings({**paths, "other": bare}), make_nlp())
    with pytest.raises(CorpusError, match=r"none.spacy: .*there is no such file"):
        read(make_settings({**paths, "other": tmp_path / "none.spacy"}), make_nlp())


@pytest.mark.parametrize("max_epochs", [0, -1])
@pytest.mark.parametrize("factory", ["crf_ner", "multitask_crf_ner"])
def test_trains_two_tasks_on_corpora_of_their_own(
    tmp_path: Path, factory: str, max_epochs: int
) -> None:
    """`spacy train`, with an encoder that both share, by two components or by one of two tasks:
    neither takes the other's sentences, in which its own entities are not annotated, for sentences
    without entities. `spacy debug config` finds nothing wrong with it.
    """
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": TOK2VEC})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
    model = {"tok2vec": listener, "rnn": None}
    if factory == "multitask_crf_ner":
        tasks = {"one": "main", "other": "auxiliary"}
        nlp.add_pipe(factory, config={"tasks": tasks, "predicted_tasks": "all", "model": model})
    else:
        for key in ("one", "other"):
            nlp.add_pipe(factory, name=key, config={"spans_key": key, "model": model})
    # "both" begins texts of either corpus, but each annotates its own part of them.
    docs = {"one": [], "other": []}
    for i in range(6):
        for key, position in (("one", 0), ("other", 1)):
            doc = nlp.make_doc(f"both sides number {i}")
            write_entities(doc, [Entity(key.upper(), ((position, position + 1),))], key)
            docs[key].append(doc)
    corpora = {
        key: {"path": str(write_docs(tmp_path / f"{key}.spacy", docs[key])), "role": role}
        for key, role in (("one", "main"), ("other", "auxiliary"))
    }
    config = nlp.config.copy()
    reader = {"@readers": "spacy_mtlner.TaskCorpora.v1", "corpora": corpora}
    config["corpora"] = {"train": reader, "dev": reader}
    scores = {"spans_one_f": 0.5, "spans_other_f": 0.5}
    config["training"].update(
        max_steps=60,
        max_epochs=max_epochs,
        eval_frequency=60,
        score_weights=scores,
        dropout=0.0,
        optimizer={"@optimizers": "Adam.v1", "learn_rate": 0.02},
        batcher={"@batchers": "spacy.batch_by_sequence.v1", "size": 6},
    )
    config.to_disk(tmp_path / "config.cfg")
    checked = CliRunner().invoke(app, ["debug", "config", str(tmp_path / "config.cfg")])
    assert checked.exit_code == 0, checked.output
    spacy_train(tmp_path / "config.cfg", tmp_path / "out")
    trained = spacy.load(tmp_path / "out" / "model-last")
    doc = trained("both sides number 9")
    assert read_entities(doc, "one") == [Entity("ONE", ((0, 1),))]
    assert read_entities(doc, "other") == [Entity("OTHER", ((1, 2),))]
    metrics = trained.meta["performance"]
    assert metrics["spans_one_f"] == metrics["spans_other_f"] == 1.0


def test_reader_is_registered() -> None:
    assert spacy.registry.readers.get("spacy_mtlner.TaskCorpora.v1") is make_task_corpora
    with pytest.raises(ValueError, match="one corpus must have the role 'main'"):
        TaskCorpora({})
