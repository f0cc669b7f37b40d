"""`python -m spacy mtlner describe`: drafts of labels' descriptions from a sememe file."""

import json
from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg

from spacy_mtlner.cli.convert import print_tallies
from spacy_mtlner.formats import Report
from spacy_mtlner.formats.base import replacing
from spacy_mtlner.formats.sememes import describe_labels, read_labels, read_sememes


def describe_cli(
    labels_path: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="The words that stand for each label: lines of a label, a tab and words, or JSON "
            '{"label": ["word", ...]}',
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="JSON file to write, {label: description}")
    ],
    sememes: Annotated[
        Path,
        typer.Option(
            "--sememes",
            "-s",
            help="Sememe file, as HowNet's: lines of word, part of speech, sememes",
        ),
    ],
    lang: Annotated[
        str,
        typer.Option("--lang", "-l", help="zh for the sememes' Chinese half, else the English one"),
    ] = "en",
    max_words: Annotated[
        int, typer.Option("--max-words", "-n", min=1, help="Words per description, at most")
    ] = 24,
    force: Annotated[
        bool, typer.Option("--force", "-F", help="Overwrite OUT, which may be edited by hand")
    ] = False,
) -> None:
    """
    Draft a description for each label, and for "O": the label's words and the sememes of all their
    senses, the most frequent first. The result is a draft, to be edited by hand: a sememe file does
    not know which sense of a word is meant.
    """
    report = Report()
    try:
        if output.exists() and not force:
            raise ValueError(f"{output} exists and may be edited by hand: --force overwrites it.")
        labels = read_labels(labels_path)
        senses = read_sememes(sememes, report)
        descriptions, missing = describe_labels(labels, senses, lang=lang, max_words=max_words)
        with replacing(output) as path:
            text = json.dumps(descriptions, indent=2, ensure_ascii=False)
            path.write_text(f"{text}\n", encoding="utf-8")
    except (OSError, ValueError) as err:
        msg.fail("There are no descriptions", str(err), exits=1)
    print_tallies(report)
    if missing:
        n_words = sum(map(len, missing.values()))
        places = "; ".join(f"{label}: {', '.join(words)}" for label, words in missing.items())
        msg.warn(f"Words that {sememes} does not have: {n_words}", places)
    bare = [label for label, words in missing.items() if len(words) == len(labels[label])]
    if bare:
        msg.warn("Labels described by their own words alone", ", ".join(bare))
    msg.good(
        f"Wrote drafts of {len(descriptions)} descriptions: {output}",
        "Edit them: take out the sememes of senses that are not meant, and add what is missing.",
    )
