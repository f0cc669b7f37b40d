"""Sememe files, as those of HowNet, and drafts of labels' descriptions made from them.

One sense of a word per line: the word, its part of speech and its sememes, separated by tabs or
blanks. A sememe is `english|中文`, or one of the two. Sememes stand in a row, or in a definition
with roles. A word has as many lines as it has senses.

    绿色    adj     color|颜色 EnvironmentFriendly|环保
    doctor  noun    DEF={human|人:domain={medical|医},{doctor|医治:agent={~}}}
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from spacy_mtlner.formats.base import CorpusError, Report, is_unicode, read_lines, read_text

_OUTSIDE = "O"
_EXPECTED_SENSES = "Expected lines `word<TAB>part of speech<TAB>sememes`."
_EXPECTED_LABELS = 'Expected lines of a label, a tab and words, or JSON: {"label": ["word", ...]}.'

# Atoms end at the signs of definitions and at those that HowNet puts in front of sememes, as "*".
# An atom before "=" is a role.
_find_atoms = re.compile(r"([^\s,;:，；：、(){}（）\[\]\"'“”~?$=*#%&@!^+]+)\s*(=?)").findall
_split_words = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])").sub
_find_strings = re.compile(r'"(?:[^"\\]|\\.)*"\s*(:?)').finditer


@dataclass(frozen=True)
class Sense:
    """One sense of a word.

    word (str): The word.
    pos (str): Its part of speech, as the file has it.
    sememes (tuple[str, ...]): The sememes, each `english|中文` or one of the two, in order.
    line (int): The line of the file, counted from 1.
    """

    word: str
    pos: str
    sememes: tuple[str, ...]
    line: int


def read_sememes(path: Path, report: Report) -> Iterator[Sense]:
    """Read a sememe file. Blank lines and lines that begin with `#` are passed over.

    path (Path): The file.
    report (Report): Counts the lines that are skipped.
    YIELDS (Sense): One sense per line.
    RAISES (CorpusError): If the file cannot be read or holds no senses.
    """
    n_senses = 0
    for number, line in read_lines(path, report):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(("{", "[")) and _is_json(line):
            raise CorpusError(path, number, "Is JSON, no sememe file.", _EXPECTED_SENSES)
        columns = [column for cell in line.split("\t") if (column := cell.strip())]
        if len(columns) < 3:  # No tabs, or not between all columns.
            columns = line.split(None, 2)
        if len(columns) < 3 or "|" in columns[1]:
            report.skip("line is not 'word, part of speech, sememes'", path, number)
            continue
        word, pos, *rest = columns
        sememes = tuple(_parse_sememes(" ".join(rest)))
        if not sememes:
            report.skip("line has no sememe", path, number)
            continue
        n_senses += 1
        yield Sense(word, pos, sememes, number)
    if not n_senses:
        raise CorpusError(path, 1, "Holds no senses.", _EXPECTED_SENSES)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse_sememes(definition: str) -> Iterator[str]:
    for atom, equals in _find_atoms(definition):
        # No sememe is all signs or digits, as the value of quantity={1}.
        if not equals and any(map(str.isalpha, atom)):
            yield atom.strip("|")


def read_labels(path: Path) -> dict[str, list[str]]:
    """Read the words that stand for each label.

    path (Path): Lines of a label, a tab and its words, separated by blanks; or one JSON object
        {"label": ["word", ...]} or {"label": "word word"}. Blank lines and lines that begin with
        `#` are passed over.
    RETURNS (dict[str, list[str]]): The labels' words. A label without words is its own word.
    RAISES (CorpusError): If the file cannot be read, is not of this form or has no labels.
    """
    text = re.sub("\r\n?", "\n", read_text(path, Report()))
    is_json = text.lstrip().startswith(("{", "["))
    labels: dict[str, list[str]] = {}
    for line, label, words in _parse_json(text, path) if is_json else _parse_lines(text):
        if not label.strip():
            raise CorpusError(path, line, "The label is empty.", _EXPECTED_LABELS)
        if label in labels:
            raise CorpusError(path, line, f"The label {label!r} is there twice.", "Join the two.")
        labels[label] = words or [label]
    if not labels:
        raise CorpusError(path, 1, "Holds no labels.", _EXPECTED_LABELS)
    return labels


def _parse_lines(text: str) -> Iterator[tuple[int, str, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            head, tab, words = line.partition("\t")
            label, *rest = (head.strip(), *words.split()) if tab else head.split()
            yield number, label, rest


def _parse_json(text: str, path: Path) -> Iterator[tuple[int, str, list[str]]]:
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as err:
        line = getattr(err, "lineno", 1)
        raise CorpusError(path, line, f"Not JSON ({err}).", _EXPECTED_LABELS) from None
    if isinstance(pairs, list):
        raise CorpusError(path, 1, "A list has no labels.", _EXPECTED_LABELS)
    # Keys inside a value would shift those behind it, but such a value is an error.
    keys = (found.start() for found in _find_strings(text) if found[1])
    for (label, value), start in zip(pairs, keys, strict=False):
        line = 1 + text.count("\n", 0, start)
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
            message = f"The words of {label!r} are no string and no list of words."
            raise CorpusError(path, line, message, _EXPECTED_LABELS)
        if not is_unicode("".join((label, *words))):
            raise CorpusError(path, line, "Half a surrogate pair.", "Write the character itself.")
        yield line, label, [word.strip() for word in words]


def describe_labels(
    labels: Mapping[str, Sequence[str]],
    senses: Iterable[Sense],
    *,
    lang: str = "en",
    max_words: int = 24,
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Draft a description for each label, and for `O`: the label's words, then the sememes of all
    their senses, the most frequent first.

    labels (Mapping[str, Sequence[str]]): The labels' words; upper and lower case are the same.
    senses (Iterable[Sense]): The senses; only those of the labels' words are kept in memory.
    lang (str): "zh" takes the Chinese half of a sememe, any other language the English one.
    max_words (int): Where to cut a description; what stands first is kept whole.
    RETURNS (tuple[dict[str, str], dict[str, list[str]]]): The descriptions by label, and the words
        without a sense by label, where there are any.
    """
    is_chinese = lang == "zh"
    sememes: dict[str, list[str]] = {w.casefold(): [] for words in labels.values() for w in words}
    for sense in senses:
        if (key := sense.word.casefold()) in sememes:
            sememes[key] += [_make_readable(sememe, is_chinese) for sememe in sense.sememes]
    descriptions = {}
    missing = {}
    for label, words in labels.items():
        counts = Counter(sememe for key in _unique(words) for sememe in sememes[key])
        parts = [*_unique([*words, *(sememe for sememe, _ in counts.most_common())]).values()]
        lengths = accumulate(len(part.split()) for part in parts)
        n_parts = sum(length <= max_words for length in lengths)
        descriptions[label] = ("，" if is_chinese else ", ").join(parts[: max(n_parts, 1)])
        if absent := [word for word in words if not sememes[word.casefold()]]:
            missing[label] = absent
    descriptions.setdefault(_OUTSIDE, "普通文本" if is_chinese else "general text")
    return descriptions, missing


def _unique(words: Iterable[str]) -> dict[str, str]:
    """Words by their form without case, each in its first spelling."""
    unique: dict[str, str] = {}
    for word in words:
        unique.setdefault(word.casefold(), word)
    return unique


def _make_readable(sememe: str, is_chinese: bool) -> str:
    """The language's half of a sememe, or the only one: "环保", "environment friendly"."""
    half = sememe.split("|")[-1 if is_chinese else 0]
    return _split_words(" ", half).lower() if half.isascii() else half
