"""Known entities of the types, with their frequencies: word lists, knowledge bases, corpora.

A file of them has one JSON object per line, as `{"type": "Drug", "name": "Advil", "frequency": 5}`.
"""

import json
import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy.kb import KnowledgeBase
from spacy.tokens import Doc

from spacy_mtlner.entities import Entity

Knowledge = dict[str, dict[str, float]]  # Type to name to frequency.


def count_entities(docs: Iterable[tuple[Doc, Sequence[Entity]]]) -> Knowledge:
    """Count the names of annotated entities.

    docs (Iterable[tuple[Doc, Sequence[Entity]]]): Docs and their entities.
    RETURNS (Knowledge): How often each name is an entity of each type.
    """
    counts: dict[str, Counter[str]] = {}
    for doc, entities in docs:
        for entity in entities:
            name = _read_name(doc, entity)
            if name:
                counts.setdefault(entity.label, Counter())[name] += 1
    return {label: dict(counter) for label, counter in counts.items()}


def _read_name(doc: Doc, entity: Entity) -> str:
    parts = [doc[start:end].text_with_ws for start, end in entity.fragments]
    return " ".join("".join(parts).split())


def select_frequent(names: Mapping[str, float], n: int) -> list[tuple[str, float]]:
    """Select the most frequent names, those of equal frequency in alphabetical order; blank ones
    and those that never occur are left out.

    names (Mapping[str, float]): Names and frequencies.
    n (int): How many, at most.
    RETURNS (list[tuple[str, float]]): The names and frequencies.
    """
    kept = [
        (name, frequency) for name, frequency in names.items() if name.strip() and frequency > 0
    ]
    return sorted(kept, key=lambda item: (-item[1], item[0]))[:n]


def read_kb(kb: KnowledgeBase, types: Mapping[str, str]) -> Knowledge:
    """Read the names of a spaCy knowledge base: its aliases.

    A name's frequency is that of the entities of a type that it may stand for, times the
    probability that it stands for them; an entity without frequency counts as one of frequency 1.

    kb (KnowledgeBase): An `InMemoryLookupKB`.
    types (Mapping[str, str]): The type of each entity, by its id; others are left out.
    RETURNS (Knowledge): The names.
    """
    found: Knowledge = {}
    lookup: Any = kb
    for alias in sorted(lookup.get_alias_strings()):
        for candidate in lookup.get_alias_candidates(alias):
            label = types.get(candidate.entity_)
            frequency = max(1.0, candidate.entity_freq) * candidate.prior_prob
            if label is not None and frequency > 0:
                names = found.setdefault(label, {})
                names[alias] = names.get(alias, 0.0) + frequency
    return found


def read_knowledge(path: Path) -> Knowledge:
    """Read a file of known entities; repeated ones are added up.

    path (Path): The file.
    RETURNS (Knowledge): The names.
    RAISES (ValueError): If a line is no known entity, or not UTF-8.
    """
    found: Knowledge = {}
    content = path.read_bytes().removeprefix(BOM_UTF8)
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            label, name, frequency = _read_line(line, f"{path}, line {number}")
            names = found.setdefault(label, {})
            names[name] = names.get(name, 0.0) + frequency
    return found


def _read_line(content: bytes, where: str) -> tuple[str, str, float]:
    try:
        line = content.decode()
        item = json.loads(line)
    except UnicodeDecodeError as err:
        raise ValueError(
            f"{where} is not UTF-8. Convert the file, for instance with iconv ({err.reason})."
        ) from None
    except ValueError as err:
        raise ValueError(f"{where} is no JSON: {err}") from None
    fields: dict[str, Any] = item if isinstance(item, dict) else {}
    label, name, frequency = (fields.get(key) for key in ("type", "name", "frequency"))
    if "frequency" not in fields:
        frequency = 1
    if not (isinstance(label, str) and label and isinstance(name, str) and name.strip()):
        raise ValueError(
            f'{where} must be an object {{"type": "<label>", "name": "<text>", "frequency": '
            f"<number>}}, not {line.strip()[:80]}"
        )
    return label, name.strip(), _check_frequency(name, frequency, where)


def _check_frequency(name: str, frequency: Any, where: str) -> float:
    is_number = isinstance(frequency, int | float) and not isinstance(frequency, bool)
    if not is_number or not 0 < float(frequency) < math.inf:
        raise ValueError(f"{where}: the frequency of {name!r} must be above 0, not {frequency!r}.")
    return float(frequency)


def check_knowledge(knowledge: Any) -> Knowledge:
    """Check known entities that do not come from a file.

    knowledge (Any): What should be type to name to frequency.
    RETURNS (Knowledge): The names.
    RAISES (ValueError): If it is something else.
    """
    if not isinstance(knowledge, Mapping):
        raise ValueError(f"it must be type to name to frequency, not {knowledge!r:.80}.")
    checked: Knowledge = {}
    for label, names in knowledge.items():
        if not isinstance(label, str) or not isinstance(names, Mapping):
            raise ValueError(f"type {label!r} must be name to frequency, not {names!r:.80}.")
        for name, frequency in names.items():
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"type {label!r}: a name must be a text, not {name!r}.")
            value = _check_frequency(name, frequency, f"type {label!r}")
            checked.setdefault(label, {})[name] = value
    return checked


def write_knowledge(knowledge: Knowledge, path: Path) -> int:
    """Write a file of known entities, by type and, the most frequent ones first, name.

    knowledge (Knowledge): The names.
    path (Path): The file.
    RETURNS (int): The number of names.
    """
    n_names = 0
    with path.open("w", encoding="utf-8") as file:
        for label in sorted(knowledge):
            for name, frequency in select_frequent(knowledge[label], len(knowledge[label])):
                value = int(frequency) if float(frequency).is_integer() else frequency
                item = {"type": label, "name": name, "frequency": value}
                file.write(f"{json.dumps(item, ensure_ascii=False)}\n")
                n_names += 1
    return n_names
