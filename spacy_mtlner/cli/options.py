"""Options that several commands have."""

from typing import Annotated

import typer

from spacy_mtlner.formats import READERS
from spacy_mtlner.formats.files import AUTO

FormatName = Annotated[
    str, typer.Option("--format", "-f", help=f"Format of the corpus: {', '.join((AUTO, *READERS))}")
]
Lang = Annotated[
    str | None,
    typer.Option("--lang", "-l", help="Language of the texts, as 'en' or 'zh', for its tokenizer"),
]
SpansKey = Annotated[
    str, typer.Option("--spans-key", "-k", help="Key of doc.spans for the entities")
]
Lossy = Annotated[bool, typer.Option(help="Write what the output's format can hold, if not all")]
