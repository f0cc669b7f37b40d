"""`python -m spacy mtlner vectors`: word vectors from corpora."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from wasabi import msg

from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.formats import Report
from spacy_mtlner.nn.glove import X_MAX
from spacy_mtlner.training.vectors import (
    Method,
    Tokens,
    Training,
    VectorSettings,
    check_output,
    choose_words,
    find_neighbours,
    make_pipeline,
    read_tokens,
    train_vectors,
    write_vectors,
)

_N_SHOWN = 8


def vectors_cli(
    corpora: Annotated[
        list[Path],
        typer.Argument(
            metavar="CORPUS...",
            help="Corpora: .spacy files, .txt files with a text per line, JSON lines with 'text', "
            "files of any other format that 'convert' reads, or folders of them",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the vectors")],
    lang: Annotated[
        str, typer.Option("--lang", "-l", help="Language of the texts, as 'en' or 'zh'")
    ],
    method: Annotated[
        str, typer.Option("--method", "-m", help=f"One of {', '.join(get_args(Method))}")
    ] = "glove",
    dim: Annotated[int, typer.Option("--dim", "-d", min=1, help="Size of the vectors")] = 100,
    min_count: Annotated[
        int, typer.Option("--min-count", "-c", min=1, help="Rarer words are left out")
    ] = 5,
    window: Annotated[
        int,
        typer.Option(
            "--window", "-w", min=1, help="Words to either side of a word that are its context"
        ),
    ] = 10,
    epochs: Annotated[
        int, typer.Option("--epochs", "-e", min=1, help="Passes over the corpus")
    ] = 15,
    lower: Annotated[
        bool,
        typer.Option(
            "--lower/--cased", help="Whether words that differ in case alone share a vector"
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed")] = 0,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            "-t",
            min=1,
            help="Threads; with several, floret and word2vec differ from run to run",
        ),
    ] = 1,
    words: Annotated[
        str | None,
        typer.Option(
            "--neighbours",
            "-n",
            metavar="WORD,WORD",
            help="Words whose nearest neighbours are printed [default: frequent ones]",
        ),
    ] = None,
    x_max: Annotated[
        float,
        typer.Option(
            help="glove: count from which on pairs of words weigh the same; 100 for billions of "
            "words"
        ),
    ] = X_MAX,
    buckets: Annotated[int, typer.Option(min=1, help="floret: rows of the table")] = 50_000,
    hashes: Annotated[
        int, typer.Option(min=1, max=4, help="floret: rows for each word and part of a word")
    ] = 2,
    min_chars: Annotated[
        int,
        typer.Option(
            min=1, help="floret: shortest part of a word, with '<' and '>' at the word's borders"
        ),
    ] = 4,
    max_chars: Annotated[
        int, typer.Option(min=0, help="floret: longest part of a word; 0 for whole words alone")
    ] = 5,
    force: Annotated[bool, typer.Option("--force", "-F", help="Replace OUT")] = False,
) -> None:
    """
    Make word vectors from corpora and write them as a pipeline that training configs take: `spacy
    train ... --initialize.vectors OUT`, where the tok2vec layer has include_static_vectors = true.
    """
    report = Report()
    try:
        check_output(output, force=force)
        settings = VectorSettings(
            method=cast(Method, method),  # The settings check it.
            dim=dim,
            min_count=min_count,
            window=window,
            epochs=epochs,
            lower=lower,
            seed=seed,
            threads=threads,
            x_max=x_max,
            buckets=buckets,
            hashes=hashes,
            min_chars=min_chars,
            max_chars=max_chars,
        )
        tokens = read_tokens(
            corpora, lang, report, lower=lower, min_count=min_count, show_progress=True
        )
        msg.info(
            f"{tokens.n_read:,} words in {len(tokens.lengths):,} texts; {len(tokens.words):,} of "
            f"{tokens.n_different:,} different ones occur {min_count} times or more"
        )
        nlp = make_pipeline(lang)
        training = train_vectors(tokens, settings, nlp, show_progress=True)
        write_vectors(nlp, output, force=force)
    except (ImportError, OSError, ValueError) as err:
        msg.fail("There are no vectors", str(err), exits=1)
    print_tallies(report)
    _print_training(tokens, settings, training)
    chosen = words.split(",") if words else choose_words(tokens, nlp, _N_SHOWN)
    neighbours = find_neighbours(filter(None, map(str.strip, chosen)), tokens, nlp, n=_N_SHOWN)
    rows = [(word, ", ".join(other for other, _ in near)) for word, near in neighbours.items()]
    msg.table([row for row in rows if row[1]], header=("Word", "Nearest"), divider=True, max_col=80)
    unknown = [word for word, near in rows if not near]
    if unknown:
        msg.warn("Words without a vector", ", ".join(unknown))
    n_rows, width = nlp.vocab.vectors.shape
    msg.good(f"Wrote {n_rows:,} vectors of {width} numbers: {output}")


def _print_training(tokens: Tokens, settings: VectorSettings, training: Training) -> None:
    """Print how long it took, and how far the loss fell."""
    speed = len(tokens.ids) * settings.epochs / training.seconds
    msg.info(
        f"{settings.method}: {settings.epochs} epochs over {len(tokens.ids):,} words in "
        f"{training.seconds:.1f} s, {speed:,.0f} words/s"
    )
    if training.losses:
        first, last = training.losses[0], training.losses[-1]
        msg.info(f"Loss per pair of words: {first:.4f} in the first epoch, {last:.4f} in the last")
