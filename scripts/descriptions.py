"""Alter type descriptions, to find out whether training uses what they say.

`shuffle` gives each type the description of another one, `randomize` replaces their words by words
of a corpus.
"""

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import spacy
import srsly
import typer
from spacy.language import Language
from spacy.tokens import DocBin, Token
from wasabi import msg

Source = Annotated[Path, typer.Argument(help="Descriptions: a JSON object")]
Output = Annotated[Path, typer.Argument(help="JSON file to write")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers")]
app = typer.Typer(help=__doc__, rich_markup_mode=None)


@app.command()
def shuffle(source: Source, output: Output, seed: Seed = 0) -> None:
    """Give each type, and "O", the description of another one."""
    try:
        _write(output, shuffle_descriptions(_read(source), seed))
    except ValueError as err:
        msg.fail(f"{source}: {err}", exits=1)


@app.command()
def randomize(
    source: Source,
    corpus: Annotated[Path, typer.Argument(help="The training corpus, .spacy")],
    output: Output,
    lang: Annotated[str, typer.Option(help="Language of corpus and descriptions")],
    seed: Seed = 0,
) -> None:
    """Replace each word of the descriptions by a word drawn from a corpus's texts."""
    try:
        nlp = spacy.blank(lang)
        docs = DocBin().from_disk(corpus).get_docs(nlp.vocab)
        words = [token.text for doc in docs for token in doc if _is_word(token)]
        _write(output, randomize_descriptions(_read(source), words, nlp, seed))
    except (ValueError, ImportError, OSError) as err:
        msg.fail(f"{source}, {corpus}: {err}", exits=1)


def shuffle_descriptions(descriptions: Mapping[str, str], seed: int) -> dict[str, str]:
    """Give each label the description of another one, none its own text.

    descriptions (Mapping[str, str]): A description for each label.
    seed (int): Seed of the random numbers.
    RETURNS (dict[str, str]): The same labels and texts, paired anew.
    RAISES (ValueError): If there is no such pairing, as too many texts are the same.
    """
    labels_of_text = defaultdict(list)
    for label, text in descriptions.items():
        labels_of_text[text.strip()].append(label)
    most = max(map(len, labels_of_text.values()), default=0)
    if not descriptions or 2 * most > len(descriptions):
        raise ValueError(f"no type can get another text: {most} of {len(descriptions)} are equal.")
    rng = random.Random(seed)
    groups = [rng.sample(labels, len(labels)) for labels in labels_of_text.values()]
    rng.shuffle(groups)
    order = [label for group in groups for label in group]
    # Labels of one text stand together, at most this many: so far away each text is another one.
    source = dict(zip(order, order[most:] + order[:most], strict=True))
    return {label: descriptions[source[label]] for label in descriptions}


def randomize_descriptions(
    descriptions: Mapping[str, str], words: Sequence[str], nlp: Language, seed: int
) -> dict[str, str]:
    """Replace each word, but no punctuation, by a drawn one.

    descriptions (Mapping[str, str]): A description for each label.
    words (Sequence[str]): Words to draw from, each as likely as it is frequent.
    nlp (Language): Tokenizes the descriptions.
    seed (int): Seed of the random numbers.
    RETURNS (dict[str, str]): The same labels with new texts of as many words.
    RAISES (ValueError): If there are no words.
    """
    if not words:
        raise ValueError("no words to draw from.")
    rng = random.Random(seed)
    return {
        label: "".join(
            rng.choice(words) + token.whitespace_ if _is_word(token) else token.text_with_ws
            for token in nlp.make_doc(text)
        )
        for label, text in descriptions.items()
    }


def _is_word(token: Token) -> bool:
    return not (token.is_space or token.is_punct)


def _read(path: Path) -> dict[str, str]:
    try:
        descriptions = srsly.read_json(path)
    except ValueError as err:
        raise ValueError(f"no JSON: {err}") from None
    if not isinstance(descriptions, dict) or not all(
        isinstance(text, str) for text in descriptions.values()
    ):
        raise ValueError('not an object {"<label>": "<text>", ...}.')
    return descriptions


def _write(path: Path, descriptions: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(descriptions, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    msg.good(f"Wrote {path}")


if __name__ == "__main__":
    app()
