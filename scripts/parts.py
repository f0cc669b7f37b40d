"""Make parts of converted corpora for studies: cut, clean, pool.

The corpora are .spacy files; what is written is .spacy as well, or text, a sentence a line.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import spacy
import typer
from spacy.tokens import Doc, DocBin
from wasabi import msg

from spacy_mtlner.formats.overlap import RUN_LENGTH, RunIndex

Corpus = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .spacy file")]
Output = Annotated[Path, typer.Argument(dir_okay=False, help="The .spacy file to write")]
app = typer.Typer(help=__doc__, rich_markup_mode=None)


@app.command()
def cut(
    corpus: Corpus,
    parts: Annotated[list[int], typer.Argument(min=2, help="16 for a sixteenth, and so on")],
    seed: int = 0,
) -> None:
    """Cut sixteenths and the like: FOLDER/train_16.spacy of FOLDER/train.spacy, and the texts of
    all others as FOLDER/train_16_rest.txt. Smaller parts are parts of larger ones.
    """
    docs = _read(corpus)
    order = list(range(len(docs)))
    random.Random(seed).shuffle(order)
    for part in parts:
        chosen = {*order[: max(len(docs) // part, 1)]}
        stem = corpus.with_name(f"{corpus.stem}_{part}")
        _write(stem.with_suffix(".spacy"), [doc for i, doc in enumerate(docs) if i in chosen])
        rest = [" ".join(doc.text.split()) for i, doc in enumerate(docs) if i not in chosen]
        path = stem.with_name(f"{stem.name}_rest.txt")
        path.write_text("".join(f"{text}\n" for text in rest if text), encoding="utf-8")
        msg.good(f"Wrote {path}: {len(rest)} texts")


@app.command()
def clean(
    corpus: Corpus,
    output: Output,
    against: Annotated[list[Path], typer.Argument(exists=True, help="Other .spacy files")],
    run_length: Annotated[int, typer.Option(min=1, help="Characters of a run")] = RUN_LENGTH,
) -> None:
    """Leave out the texts that share a run of characters with any text of other corpora."""
    others = (doc.text for path in against for doc in _read(path))
    index = RunIndex(others, n=run_length)
    docs = _read(corpus)
    shares = index.shares([doc.text for doc in docs])
    kept = [doc for doc, share in zip(docs, shares, strict=True) if not share]
    _write(output, kept)
    msg.info(f"Left out {len(docs) - len(kept)} of {len(docs)} docs")


@app.command()
def pool(
    output: Output,
    corpora: Annotated[list[Path], typer.Argument(exists=True, help=".spacy files")],
) -> None:
    """Put corpora of one annotation together."""
    _write(output, (doc for path in corpora for doc in _read(path)))


_vocab = spacy.blank("xx").vocab


def _read(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(_vocab))


def _write(path: Path, docs: Iterable[Doc]) -> None:
    _save(path, DocBin(docs=docs, store_user_data=True))


def _save(path: Path, doc_bin: DocBin) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    doc_bin.to_disk(path)
    msg.good(f"Wrote {path}: {len(doc_bin)} docs")


if __name__ == "__main__":
    app()
