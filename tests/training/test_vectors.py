"""Vectors from corpora: the words, the three methods, and what spaCy makes of the result."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training.initialize import init_nlp
from spacy.vectors import Mode

from spacy_mtlner.formats import CorpusError, Report
from spacy_mtlner.training.vectors import (
    Tokens,
    VectorSettings,
    choose_words,
    find_neighbours,
    make_pipeline,
    read_tokens,
    train_vectors,
    write_vectors,
)

METHODS = ("glove", "word2vec", "floret")
# cat and dog, and red and blue, stand in the same places.
TEXTS = [
    f"The {animal} {verb} the {color} {thing}."
    for animal in ("cat", "dog")
    for verb in ("ate", "saw")
    for color in ("red", "blue")
    for thing in ("house", "tree", "car")
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS * 5), encoding="utf-8")
    return path


def read(path: Path, lang: str = "en", lower: bool = True, min_count: int = 1) -> Tokens:
    return read_tokens([path], lang, Report(), lower=lower, min_count=min_count)


def make_settings(method: Any = "glove", **settings: Any) -> VectorSettings:
    if method in ("word2vec", "floret"):
        pytest.importorskip({"word2vec": "gensim", "floret": "floret"}[method])
    defaults = {"dim": 8, "min_count": 1, "window": 3, "epochs": 3, "buckets": 200}
    return VectorSettings(method, **(defaults | settings))


def train(tokens: Tokens, settings: VectorSettings, lang: str = "en") -> Language:
    nlp = make_pipeline(lang)
    train_vectors(tokens, settings, nlp)
    return nlp


# Words


def test_words_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("B a  b\n\na b c\nd\n", encoding="utf-8")
    tokens = read(path, min_count=2)
    assert tokens.words == ["b", "a"] and tokens.counts.tolist() == [3, 2]
    assert tokens.ids.tolist() == [0, 1, 0, 1, 0] and tokens.lengths.tolist() == [3, 2, 0]
    assert (tokens.n_read, tokens.n_different) == (7, 4)
    assert [*tokens.read_lines()] == [["b", "a", "b"], ["a", "b"]]
    # Those of one frequency are sorted.
    assert read(path).words == ["b", "a", "c", "d"]
    assert read(path, lower=False).words == ["a", "b", "B", "c", "d"]


def test_several_corpora_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "b c d"}))
    vocab = spacy.blank("en").vocab
    docs = [Doc(vocab, words=["b", "\n", "New York"]), Doc(vocab)]
    DocBin(docs=docs).to_disk(tmp_path / "c.spacy")
    paths = [tmp_path / name for name in ("a.txt", "b.jsonl", "c.spacy")]
    tokens = read_tokens(paths, "en", Report())
    assert [tokens.words[i] for i in tokens.ids] == ["a", "b", "b", "c", "d", "b", "new york"]
    assert tokens.lengths.tolist() == [2, 3, 2, 0]


def test_long_texts_become_several_lines(tmp_path: Path) -> None:
    """gensim would cut them off."""
    path = tmp_path / "a.txt"
    path.write_text(" ".join(map(str, range(2500))))
    lines = [*read(path).read_lines()]
    assert [*map(len, lines)] == [1000, 1000, 500]
    assert [word for line in lines for word in line] == [*map(str, range(2500))]


def test_texts_longer_than_spacy_allows(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word " * 200_001)
    assert read(path).counts.tolist() == [200_001]


def test_no_word_is_frequent_enough(corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"No word occurs 1000 times: .* 'the', does 240 times"):
        read(corpus, min_count=1000)


def test_no_words(tmp_path: Path) -> None:
    vocab = spacy.blank("en").vocab
    DocBin(docs=[Doc(vocab, words=["\n"]), Doc(vocab)]).to_disk(tmp_path / "a.spacy")
    with pytest.raises(CorpusError, match=r"a\.spacy: Holds no words"):
        read(tmp_path / "a.spacy")


def test_unknown_language(corpus: Path) -> None:
    with pytest.raises(ImportError, match="No tokenizer for language 'qq'"):
        read(corpus, "qq")


def test_forms(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("mRNA mrna Rare")
    forms = dict.fromkeys(("mRNA", "mrna", "MRNA", "Mrna"), 0)
    assert read(path, min_count=2).forms == forms
    assert read(path, lower=False).forms == {"Rare": 0, "mRNA": 1, "mrna": 2}


# Settings


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "bert"}, "--method 'bert': choose one of glove, floret, word2vec"),
        ({"dim": 0}, "--dim must be 1 or more, not 0"),
        ({"min_count": 0}, "--min-count must be 1 or more"),
        ({"window": -1}, "--window must be"),
        ({"epochs": 0}, "--epochs must be"),
        ({"threads": 0}, "--threads must be"),
        ({"buckets": 0}, "--buckets must be"),
        ({"min_chars": 0}, "--min-chars must be"),
        ({"x_max": 0}, "--x-max must be a number above 0"),
        ({"x_max": float("nan")}, "--x-max must be a number above 0"),
        ({"hashes": 5}, "--hashes must be from 1 to 4"),
        ({"max_chars": 3}, "--max-chars must be 0 or --min-chars or more, not 3"),
        ({"seed": -1}, "--seed must be from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "--seed must be from 0 to"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorSettings(**settings)


@pytest.mark.parametrize("method, library", [("word2vec", "gensim"), ("floret", "floret")])
def test_missing_libraries(monkeypatch: pytest.MonkeyPatch, method: Any, library: str) -> None:
    for module in (library, f"{library}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs the library {library} .*mtlner\[vectors\]"):
        VectorSettings(method)
    VectorSettings("glove")


# Training


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lower", [True, False])
def test_spacy_reads_what_is_written(
    tmp_path: Path, corpus: Path, method: str, lower: bool
) -> None:
    settings = make_settings(method, lower=lower, min_count=20)
    tokens = read(corpus, lower=lower, min_count=20)
    nlp = train(tokens, settings)
    path = tmp_path / "new" / "vectors"
    write_vectors(nlp, path)
    assert [*path.parent.iterdir()] == [path]
    # A trained pipeline has read them and is written itself.
    spacy.load(path).to_disk(tmp_path / "again")
    loaded = spacy.load(tmp_path / "again")
    assert loaded.vocab.vectors.name == f"en_{method}_8.vectors"
    doc = loaded("The cat saw the CAT unheard")
    vectors = [token.vector for token in doc]
    assert all(len(vector) == 8 for vector in vectors)
    assert vectors[1].any() and numpy.array_equal(vectors[1], nlp.vocab["cat"].vector)
    assert numpy.array_equal(vectors[1], vectors[4]) == lower
    # Unknown words have no vector but by floret, which makes one of their parts.
    assert vectors[5].any() == (method == "floret") == doc[5].has_vector
    mode = Mode.floret if method == "floret" else Mode.default
    assert loaded.vocab.vectors.mode == mode
    assert loaded.vocab.vectors.shape == (200 if method == "floret" else len(tokens.words), 8)


@pytest.mark.parametrize("method", METHODS)
def test_training_configs_take_them(tmp_path: Path, corpus: Path, method: str) -> None:
    """As `spacy train --initialize.vectors`, with include_static_vectors = true."""
    write_vectors(train(read(corpus), make_settings(method)), tmp_path / "vectors")
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in TEXTS[:2]]
    for doc in docs:
        doc.spans["mtlner"] = [Span(doc, 1, 2, label="ANIMAL")]
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    config = Path(__file__).parents[2] / "configs" / "bilstm_crf_en.cfg"
    overrides = {
        "paths.train": str(tmp_path / "train.spacy"),
        "paths.dev": str(tmp_path / "train.spacy"),
        "initialize.vectors": str(tmp_path / "vectors"),
        "components.crf_ner.model.tok2vec.include_static_vectors": True,
    }
    nlp = init_nlp(spacy.util.load_config(config, overrides=overrides))
    static = [
        layer for layer in nlp.get_pipe("crf_ner").model.walk() if layer.name == "static_vectors"
    ]
    assert [layer.get_dim("nM") for layer in static] == [8]
    assert nlp.vocab["cat"].vector.any()
    list(nlp.pipe(TEXTS[:2]))


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_one_result(corpus: Path, method: str) -> None:
    tokens = read(corpus)
    first, again, other = (
        train(tokens, make_settings(method, seed=seed)).vocab.vectors.data for seed in (1, 1, 2)
    )
    assert numpy.array_equal(first, again)
    assert not numpy.array_equal(first, other)


@pytest.mark.parametrize("method", METHODS)
def test_words_of_like_contexts_become_neighbours(corpus: Path, method: str) -> None:
    tokens = read(corpus)
    # Parts of words say nothing here.
    nlp = train(tokens, make_settings(method, epochs=60, window=2, max_chars=0, buckets=5000))
    cat, dog, car = (nlp.vocab[word] for word in ("cat", "dog", "car"))
    assert cat.similarity(dog) > cat.similarity(car)
    assert cat.similarity(dog) > 0.6


def test_loss_falls(corpus: Path) -> None:
    training = train_vectors(read(corpus), make_settings(epochs=20), spacy.blank("en"))
    assert len(training.losses) == 20 and training.losses[-1] < training.losses[0] / 4
    assert training.seconds > 0


def test_threads_are_set_back(corpus: Path) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    first, second = (
        train(read(corpus), make_settings(threads=n)).vocab.vectors.data for n in (1, 2)
    )
    assert torch.get_num_threads() == before
    numpy.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_no_pairs_for_glove(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n")
    with pytest.raises(ValueError, match="No word stands near another one"):
        train(read(path), make_settings())


@pytest.mark.parametrize("method", METHODS)
def test_chinese(tmp_path: Path, method: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("我吃鱼。\n我吃饭。\n" * 100, encoding="utf-8")
    tokens = read(path, "zh")
    assert tokens.words[:3] == ["。", "吃", "我"] and len(tokens.words) == 5
    nlp = train(tokens, make_settings(method), "zh")
    assert nlp.lang == "zh" and nlp("吃").vector.any()
    assert choose_words(tokens, nlp, 2) == ["吃", "饭"]  # 我 is a stop word.
    assert len(find_neighbours(["吃"], tokens, nlp)["吃"]) == 4


@pytest.mark.parametrize("method", METHODS)
def test_a_single_text_and_odd_words(tmp_path: Path, method: str) -> None:
    vocab = spacy.blank("en").vocab
    words = ["New York", "</s>", "__label__x", "a\u2028b", "x"]
    DocBin(docs=[Doc(vocab, words=words)]).to_disk(tmp_path / "a.spacy")
    tokens = read(tmp_path / "a.spacy", lower=False)
    nlp = train(tokens, make_settings(method, lower=False))
    assert sorted(tokens.words) == sorted(words)
    assert all(nlp.vocab.has_vector(word) for word in words)


# Neighbours


def test_neighbours_by_loop(corpus: Path) -> None:
    tokens = read(corpus)
    nlp = train(tokens, make_settings())
    found = find_neighbours(["cat", "THE", "unheard"], tokens, nlp, n=3)
    assert found.keys() == {"cat", "THE", "unheard"} and found["unheard"] == []
    for word in ("cat", "THE"):
        own = nlp.vocab[word]
        cosines = {
            other: own.similarity(nlp.vocab[other])
            for other in tokens.words
            if other != word.lower()
        }
        expected = sorted(cosines, key=lambda other: -cosines[other])[:3]
        assert [other for other, _ in found[word]] == expected
        for other, cosine in found[word]:
            assert cosine == pytest.approx(cosines[other], abs=1e-5)


def test_neighbours_of_unknown_words_by_floret(corpus: Path) -> None:
    tokens = read(corpus)
    nlp = train(tokens, make_settings("floret", min_chars=3, epochs=300, buckets=5000))
    found = find_neighbours(["housed", "Treed", "cats"], tokens, nlp, n=1)
    assert [near[0][0] for near in found.values()] == ["house", "tree", "cat"]


def test_chosen_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("the , 12 ten b cell cell gene IL-2 protein")
    assert choose_words(read(path), spacy.blank("en"), 2) == ["cell", "gene"]
    assert choose_words(read(path), spacy.blank("en"), 9) == ["cell", "gene", "protein"]


# Output


def test_output_is_replaced_only_by_force(tmp_path: Path, corpus: Path) -> None:
    nlp = train(read(corpus), make_settings())
    path = tmp_path / "vectors"
    path.mkdir()
    write_vectors(nlp, path)  # An empty folder is none.
    with pytest.raises(ValueError, match="exists: --force replaces it"):
        write_vectors(nlp, path)
    (path / "old").write_text("")
    write_vectors(nlp, path, force=True)
    assert not (path / "old").exists() and spacy.load(path).vocab["cat"].has_vector


@pytest.mark.parametrize("is_folder", [True, False])
def test_other_things_are_never_replaced(tmp_path: Path, corpus: Path, is_folder: bool) -> None:
    path = corpus.parent if is_folder else corpus
    with pytest.raises(ValueError, match="exists and holds no pipeline"):
        write_vectors(spacy.blank("en"), path, force=True)
    assert corpus.is_file()
