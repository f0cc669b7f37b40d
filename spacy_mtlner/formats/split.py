"""A corpus into parts for training and evaluation: by document, with every label in every part.

The records are read twice: once for their summaries, which are all that the split needs, and once
to write each record to its part.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from spacy_mtlner.entities import find_inside
from spacy_mtlner.formats.base import Record
from spacy_mtlner.formats.overlap import NEAR_DUPLICATE, hash_text, normalise

TRAIN = "train"

_N_CANDIDATES = 100
_N_STEPS = 10_000


class Stratum(NamedTuple):
    """A kind of entities that is shared out evenly, or the records without any.

    form (str): "any", "discontinuous", "inside" (another entity) or "none".
    label (str): The entities' label; empty where there are none.
    """

    form: str
    label: str = ""

    def __str__(self) -> str:
        texts = {"any": "{}", "discontinuous": "discontinuous {}", "inside": "{} inside another"}
        return texts.get(self.form, "no entity").format(self.label)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a split needs to know of a record.

    document (Optional[str]): The name of the document that the record is a part of.
    text (Optional[int]): The hash of its text; None if that is nothing but white space.
    strata (Mapping[Stratum, int]): Its entities by stratum.
    """

    document: str | None
    text: int | None
    strata: Mapping[Stratum, int]


@dataclass(frozen=True)
class Split:
    """Which record goes where, and what the parts hold.

    parts (list[str]): The name of each record's part.
    records (dict[str, int]): Records by part.
    units (dict[str, int]): What was never divided, documents and copies of texts, by part.
    strata (dict[Stratum, dict[str, int]]): Entities, or records without any, by part.
    n_apart (int): Texts that stand in several parts: sentences that documents share.
    """

    parts: list[str]
    records: dict[str, int]
    units: dict[str, int]
    strata: dict[Stratum, dict[str, int]]
    n_apart: int

    @property
    def missing(self) -> list[Stratum]:
        """RETURNS (list[Stratum]): The strata that not every part has: too few units have them."""
        return [stratum for stratum, counts in self.strata.items() if not all(counts.values())]


def summarise(record: Record) -> Summary:
    """Keep of a record what a split needs to know.

    record (Record): The record.
    RETURNS (Summary): Its summary.
    """
    strata: Counter[Stratum] = Counter()
    is_inside = find_inside([fragments for _, fragments in record.entities])
    for (label, fragments), inside in zip(record.entities, is_inside, strict=True):
        strata[Stratum("any", label)] += 1
        if len(fragments) > 1:
            strata[Stratum("discontinuous", label)] += 1
        if inside:
            strata[Stratum("inside", label)] += 1
    if not strata:
        strata[Stratum("none")] = 1
    text = hash_text(record.text) if normalise(record.text) else None
    return Summary(record.document, text, strata)


def split_records(
    summaries: Sequence[Summary], shares: Mapping[str, float], *, seed: int = 0
) -> Split:
    """Divide a corpus into "train" and other parts.

    Records of one document stay together, and so do those of the same text and documents that are
    copies of each other: half of one's texts stand in the other. These units are shared out by
    iterative stratification (Sechidis et al. 2011), the rarest stratum first. A stratum of at least
    as many units as there are parts is in every part, wherever that is possible for all of them.

    summaries (Sequence[Summary]): The records' summaries.
    shares (Mapping[str, float]): The other parts' names, and their shares of the records; a part
        whose share is 0 is left out.
    seed (int): Chooses among splits that are equally good.
    RETURNS (Split): The split.
    RAISES (ValueError): If there are no such shares, or fewer units than parts.
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"--{name} is {share}: a share must be at least 0 and less than 1.")
    total = sum(shares.values())
    if not 0 < total < 1:
        raise ValueError(
            f"{_settings(shares)} are {total:g} together: they must be more than 0 and leave "
            f"something for {TRAIN}."
        )
    if not summaries:
        raise ValueError("The corpus has no records to split.")
    names = [TRAIN, *(name for name, share in shares.items() if share)]
    unit_of_record = _find_units(summaries)
    n_units = max(unit_of_record) + 1
    if n_units < len(names):
        raise ValueError(
            f"The corpus has {n_units} document(s), copies not counted; {_settings(names[1:])} "
            f"need at least {len(names)}."
        )
    part_shares = [1 - total, *(shares[name] for name in names[1:])]
    plan = _Plan(summaries, unit_of_record, part_shares, random.Random(seed))
    plan.secure()
    plan.fill()
    parts = [names[plan.part_of[unit]] for unit in unit_of_record]
    return _describe(summaries, parts, names, [names[part] for part in plan.part_of])


def _settings(names: Iterable[str]) -> str:
    return " and ".join(f"--{name}" for name in names)


def _describe(
    summaries: Sequence[Summary], parts: list[str], names: list[str], part_of_unit: list[str]
) -> Split:
    strata: dict[Stratum, dict[str, int]] = {}
    parts_of_text: dict[int, str] = {}
    apart: set[int] = set()
    for summary, part in zip(summaries, parts, strict=True):
        for stratum, count in summary.strata.items():
            strata.setdefault(stratum, dict.fromkeys(names, 0))[part] += count
        if summary.text is not None and parts_of_text.setdefault(summary.text, part) != part:
            apart.add(summary.text)
    return Split(
        parts,
        {name: parts.count(name) for name in names},
        {name: part_of_unit.count(name) for name in names},
        dict(sorted(strata.items())),
        len(apart),
    )


def _find_units(summaries: Sequence[Summary]) -> list[int]:
    """The number of each record's unit, counted in order of the records."""
    numbers: dict[str | tuple[int], int] = {}
    # A record that is part of no document is a document by itself.
    documents = [
        numbers.setdefault((i,) if summary.document is None else summary.document, len(numbers))
        for i, summary in enumerate(summaries)
    ]
    pairs = dict.fromkeys(
        (summary.text, document)
        for summary, document in zip(summaries, documents, strict=True)
        if summary.text is not None
    )
    n_texts = Counter(document for _, document in pairs)
    first_holders: dict[int, int] = {}
    shared: Counter[tuple[int, int]] = Counter()
    # The document of most texts first: so that no small one chains large ones together.
    for text, document in sorted(pairs, key=lambda pair: -n_texts[pair[1]]):
        holder = first_holders.setdefault(text, document)
        if holder != document:
            shared[holder, document] += 1
    roots = list(range(len(numbers)))

    def find_root(document: int) -> int:
        while roots[document] != document:
            roots[document] = roots[roots[document]]
            document = roots[document]
        return document

    # A single text of many is no copy: formulas like "Yes." and "All rights reserved." would chain
    # documents together until hardly any units are left.
    for (holder, document), n_shared in shared.items():
        if n_shared >= NEAR_DUPLICATE * n_texts[document]:
            roots[find_root(document)] = find_root(holder)
    units: dict[int, int] = {}
    return [units.setdefault(find_root(document), len(units)) for document in documents]


class _Plan:
    """Units on their way into parts.

    What a unit holds is counted by the number of the stratum; the last number stands for records.
    """

    def __init__(
        self,
        summaries: Sequence[Summary],
        unit_of_record: Sequence[int],
        shares: Sequence[float],
        rng: random.Random,
    ) -> None:
        self.rng = rng
        self.parts = range(len(shares))
        names = sorted(set(chain.from_iterable(summary.strata for summary in summaries)))
        numbers = {stratum: number for number, stratum in enumerate(names)}
        self.records = len(names)
        self.contents: list[dict[int, int]] = [{} for _ in range(max(unit_of_record) + 1)]
        for summary, unit in zip(summaries, unit_of_record, strict=True):
            content = self.contents[unit]
            for stratum, count in summary.strata.items():
                content[numbers[stratum]] = content.get(numbers[stratum], 0) + count
            content[self.records] = content.get(self.records, 0) + 1
        order = list(range(len(self.contents)))
        rng.shuffle(order)
        self.holders: list[list[int]] = [[] for _ in range(len(names) + 1)]
        for unit in order:
            for number in self.contents[unit]:
                self.holders[number].append(unit)
        totals = [sum(self.contents[u][s] for u in units) for s, units in enumerate(self.holders)]
        # How much each part still wants of each stratum; of records, a whole number.
        self.needs: list[list[float]] = [[n * share for share in shares] for n in totals[:-1]]
        self.needs.append([*_round(totals[-1], shares)])
        self.part_of = [-1] * len(self.contents)
        self.n_units = [[0] * len(shares) for _ in self.holders]  # By stratum and part.
        self.n_left = [len(units) for units in self.holders]

    def place(self, unit: int, part: int) -> None:
        self.part_of[unit] = part
        self._count(unit, part, 1)

    def take_back(self, unit: int) -> None:
        self._count(unit, self.part_of[unit], -1)
        self.part_of[unit] = -1

    def _count(self, unit: int, part: int, sign: int) -> None:
        for stratum, count in self.contents[unit].items():
            self.needs[stratum][part] -= sign * count
            self.n_units[stratum][part] += sign
            self.n_left[stratum] -= sign

    def secure(self) -> None:
        """Place so many units that each part has one of every stratum, where enough units have it.

        Strata can stand in each other's way: where no way is found, as many as possible are served.
        """
        required = [s for s, units in enumerate(self.holders) if len(units) >= len(self.parts)]
        if self._search(required):
            return
        while lacking := [s for s in self._find_lacking(required) if self.n_left[s]]:
            self.place(*next(self._candidates(required, lacking)))

    def _search(self, required: Sequence[int]) -> bool:
        """Place units that secure all required strata, or none if no such units are found."""
        placed: list[int] = []
        open_candidates: list[Iterator[tuple[int, int]]] = []
        for _ in range(_N_STEPS):
            if len(open_candidates) == len(placed):
                lacking = self._find_lacking(required)
                if not lacking:
                    return True
                is_hopeless = any(self._slack(stratum) < 0 for stratum in lacking)
                candidates = iter(()) if is_hopeless else self._candidates(required, lacking)
                open_candidates.append(candidates)
            candidate = next(open_candidates[-1], None)
            if candidate is not None:
                self.place(*candidate)
                placed.append(candidate[0])
            elif not placed:
                return False
            else:
                open_candidates.pop()
                self.take_back(placed.pop())
        for unit in placed:
            self.take_back(unit)
        return False

    def _find_lacking(self, required: Sequence[int]) -> list[int]:
        return [stratum for stratum in required if 0 in self.n_units[stratum]]

    def _slack(self, stratum: int) -> int:
        """How many units of a stratum are left beyond those that parts without it need."""
        return self.n_left[stratum] - self.n_units[stratum].count(0)

    def _candidates(
        self, required: Sequence[int], lacking: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        """The units that bring the scarcest stratum to a part that lacks it, and the part; first
        those that bring more along.
        """
        scarcest = min(lacking, key=self._slack)
        without = [part for part in self.parts if not self.n_units[scarcest][part]]
        part = min(without, key=lambda part: self.n_units[self.records][part])
        wanted = {stratum for stratum in required if not self.n_units[stratum][part]}

        def rank(unit: int) -> tuple[bool, int]:
            content = self.contents[unit]
            is_too_large = content[self.records] > self.needs[self.records][part]
            return is_too_large, -len(wanted & content.keys())

        units = islice(self._left(scarcest), _N_CANDIDATES)
        return ((unit, part) for unit in sorted(units, key=rank))

    def _left(self, stratum: int) -> Iterator[int]:
        return (unit for unit in self.holders[stratum] if self.part_of[unit] < 0)

    def fill(self) -> None:
        """Place all units that are left."""
        while strata := [stratum for stratum, n in enumerate(self.n_left) if n]:
            rarest = min(strata, key=self.n_left.__getitem__)
            for unit in [*self._left(rarest)]:
                self.place(unit, self._choose(unit, rarest))

    def _choose(self, unit: int, stratum: int) -> int:
        """The part that has room for a unit and needs the stratum most."""
        rooms, needs = self.needs[self.records], self.needs[stratum]
        size = self.contents[unit][self.records]
        fitting = [part for part in self.parts if rooms[part] >= size]
        if not fitting:
            return max(self.parts, key=rooms.__getitem__)
        return max(fitting, key=lambda part: (needs[part], rooms[part], self.rng.random()))


def _round(total: int, shares: Sequence[float]) -> list[int]:
    """Share out a whole number: the largest remainders are rounded up."""
    exact = [total * share for share in shares]
    rounded = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: total - sum(rounded)]:
        rounded[i] += 1
    return rounded
