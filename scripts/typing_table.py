"""Entity typing beside recognition: the protocol of "A Span-Level Strategy for Nested Named Entity
Recognition", which classifies given gold spans, and what the same classifier finds by itself.

One row for each kind of word vectors, and for typing a linear model over hashed n-grams of the
spans' characters and words.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import spacy
import srsly
import typer
from spacy.scorer import PRFScore
from study_run import train_and_score
from wasabi import msg

from spacy_mtlner.entities import Fragments, read_entities
from spacy_mtlner.evaluation.tables import format_percent, make_table
from spacy_mtlner.formats.docbin import load_docs

TOK2VEC = "components.span_ner.model.tok2vec"


@dataclass(frozen=True)
class Typing:
    """What typing of given spans brought.

    accuracy (float): Share of the spans with the right label.
    macro_f (Optional[float]): Mean of the labels' F1.
    seconds (float): Seconds of training, and of evaluation along with it.
    """

    accuracy: float
    macro_f: float | None
    seconds: float

    @property
    def f(self) -> float:
        """RETURNS (float): The paper's F1: the accuracy is its precision, and its recall is 1, as
        every span gets a label.
        """
        return 2 * self.accuracy / (1 + self.accuracy)


@dataclass(frozen=True)
class Recognition:
    """What recognition brought: precision, recall and F1, and the seconds as in `Typing`."""

    precision: float
    recall: float
    f: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the table: a system's name, its typing and, if it can, its recognition."""

    name: str
    typing: Typing
    recognition: Recognition | None = None


def main(
    train: Annotated[Path, typer.Argument(help="Training corpus, .spacy")],
    dev: Annotated[Path, typer.Argument(help="Corpus on which the best step is chosen, .spacy")],
    test: Annotated[Path, typer.Argument(help="Corpus that is reported; may be the second")],
    output: Annotated[Path, typer.Argument(help="Folder to write typing.md and typing.json into")],
    lang: Annotated[str, typer.Option(help="Language of the corpus")],
    vectors: Annotated[Path, typer.Option(help="Vectors trained on the corpus")],
    other_vectors: Annotated[Path | None, typer.Option(help="Vectors from elsewhere")] = None,
    steps: Annotated[int, typer.Option(help="Training steps", min=1)] = 1000,
    words: Annotated[int, typer.Option(help="Words of a batch", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers")] = 0,
    gpu_id: Annotated[int, typer.Option(help="GPU, or -1 for the CPU")] = -1,
) -> None:
    """Train and score the systems, and write the table."""
    recipe = "zh" if lang == "zh" else "en"  # By characters or by words.
    configs = Path(__file__).parent.parent / "configs"
    settings: dict[str, Any] = {
        "nlp.lang": lang,
        "paths.train": str(train),
        "paths.dev": str(dev),
        "system.seed": seed,
        "training.max_steps": steps,
        "training.eval_frequency": max(1, steps // 4),
        "training.batcher.size": words,
        "training.optimizer.learn_rate.warmup_steps": steps // 10,
    }
    kinds: dict[str, dict[str, Any]] = {
        "no vectors": {f"{TOK2VEC}.include_static_vectors": False},
        "vectors of the corpus": {"paths.vectors": str(vectors)},
    }
    if other_vectors is not None:
        kinds["vectors from elsewhere"] = {"paths.vectors": str(other_vectors)}
    for path in (train, dev, test, *(v for v in (vectors, other_vectors) if v)):
        if not path.exists():
            msg.fail(f"{path} does not exist.", exits=1)
    for path in (train, test):
        if not any(read_spans(path, lang)):
            msg.fail(f"{path} has no entities in doc.spans['mtlner'].", exits=1)
    rows = [Row("linear, hashed n-grams", train_linear(train, test, lang))]
    for name, own in kinds.items():
        found = {}
        for protocol in ("typing", "span"):
            config = str(configs / f"{protocol}_{recipe}.cfg")
            with tempfile.TemporaryDirectory() as folder:
                found[protocol] = train_and_score(
                    config, {**settings, **own}, str(test), Path(folder), gpu_id
                )
        rows.append(Row(name, _read_typing(found["typing"]), _read_recognition(found["span"])))
    output.mkdir(parents=True, exist_ok=True)
    (output / "typing.md").write_text(
        make_page(train, dev, test, steps, words, rows), encoding="utf-8"
    )
    srsly.write_json(output / "typing.json", [asdict(row) for row in rows])
    msg.good(f"Wrote {output}/typing.md and typing.json")


def train_linear(train: Path, test: Path, lang: str) -> Typing:
    """Train logistic regression over hashed n-grams of the gold spans' characters and words.

    train (Path): The training corpus.
    test (Path): The corpus to score it on.
    lang (str): Their language.
    RETURNS (Typing): Its accuracy and F1.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    vectorizer = HashingVectorizer(analyzer=list_features, n_features=2**20, norm=None)
    start = time.perf_counter()
    spans = [(words, label) for words, labels in read_spans(train, lang) for label in labels]
    model: Any = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, random_state=0)
    if len({label for _, label in spans}) == 1:  # Nothing to tell apart, which SGD refuses.
        model = DummyClassifier(strategy="most_frequent")
    model.fit(vectorizer.transform([words for words, _ in spans]), [label for _, label in spans])
    tested = list(read_spans(test, lang))
    predicted = model.predict(vectorizer.transform([words for words, _ in tested]))
    scores: dict[str, PRFScore] = defaultdict(PRFScore)
    n_right = 0
    for found, (_, labels) in zip(predicted.tolist(), tested, strict=True):
        n_right += found in labels
        for label in {found, *labels}:
            scores[label].score_set({found} & {label}, labels & {label})
    macro = sum(score.fscore for score in scores.values()) / len(scores)
    return Typing(n_right / len(tested), macro, time.perf_counter() - start)


def read_spans(path: Path, lang: str) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Read the words and the labels of each place where gold entities are.

    path (Path): A corpus, .spacy.
    lang (str): Its language.
    YIELDS (tuple[tuple[str, ...], set[str]]): Words and labels.
    """
    for doc in load_docs(path, spacy.blank(lang).vocab):
        labels: dict[Fragments, set[str]] = defaultdict(set)
        for entity in read_entities(doc):
            labels[entity.fragments].add(entity.label)
        for fragments, found in labels.items():
            yield tuple(doc[i].text for start, end in fragments for i in range(start, end)), found


def list_features(words: tuple[str, ...]) -> list[str]:
    """List the n-grams of a span: 1 to 3 words, and 1 to 5 characters with the span's edges.

    words (tuple[str, ...]): The span's words.
    RETURNS (list[str]): The n-grams.
    """
    text = f"<{' '.join(words)}>"
    grams = [
        f"w{'_'.join(words[i : i + n])}" for n in range(1, 4) for i in range(len(words) - n + 1)
    ]
    grams += [f"c{text[i : i + n]}" for n in range(1, 6) for i in range(len(text) - n + 1)]
    return grams


def make_page(train: Path, dev: Path, test: Path, steps: int, words: int, rows: list[Row]) -> str:
    """Make the page with the table.

    train (Path): The training corpus.
    dev (Path): The corpus on which the best step was chosen.
    test (Path): The corpus the systems were scored on.
    steps (int): Training steps.
    words (int): Words of a batch.
    rows (list[Row]): The results.
    RETURNS (str): Markdown.
    """
    header = ["system", "typing: accuracy", "P", "R", "F1", "macro F1", "s"]
    header += ["recognition: P", "R", "F1", "s"]
    cells = []
    for row in rows:
        typing, found = row.typing, row.recognition
        line = [row.name, *map(format_percent, (typing.accuracy, typing.accuracy, 1.0, typing.f))]
        line += [format_percent(typing.macro_f), f"{typing.seconds:.0f}"]
        if found is None:
            line += ["-"] * 4
        else:
            line += [*map(format_percent, (found.precision, found.recall, found.f))]
            line += [f"{found.seconds:.0f}"]
        cells.append(line)
    same = " The best step was chosen on the same part." if dev == test else ""
    return (
        f"# Typing and recognition: {train}, scored on {test}\n\n"
        f"{steps} steps of {words} words, a tenth of them to warm up.{same} The first six columns "
        f"of figures are **entity typing**: the boundaries are given, and precision, recall and F1 "
        f"are the paper's, whose recall is 100 % by construction. The last four are "
        f"**recognition**: the same classifier has to find the entities among n-grams of tokens. "
        f"The two are not to be compared with each other. All figures but seconds (s) are in "
        f"percent.\n\n{make_table(header, cells)}\n"
    )


def _read_typing(result: Mapping[str, Any]) -> Typing:
    scores = result["scores"]
    values = scores["typing_mtlner_acc"], scores["typing_mtlner_macro_f"]
    return Typing(*values, result["seconds"])


def _read_recognition(result: Mapping[str, Any]) -> Recognition:
    values = (result["scores"][f"spans_mtlner_{name}"] for name in "prf")
    return Recognition(*values, result["seconds"])


if __name__ == "__main__":
    typer.run(main)
