"""Run a study: train variants of a pipeline with several seeds, and compare them.

STUDY is a YAML file, see docs/studies.md. Everything is written into one folder: a table
(study.md), all figures (study.json), a plot (study.png, study.svg), and what each run brought
(runs/), so that an interrupted study goes on where it was.
"""

import hashlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import spacy
import srsly
import typer
from spacy.util import load_config
from wasabi import msg

from spacy_mtlner.about import __version__
from spacy_mtlner.evaluation.tables import format_percent, make_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SETTINGS = ("config", "train", "dev", "test", "overrides")
STUDY_KEYS = ("title", "seeds", "groups", *SETTINGS)
GROUP_KEYS = ("name", "x", "variants", *SETTINGS)
# What a study says elsewhere may not be overridden.
RESERVED = {"paths.train": "train", "paths.dev": "dev", "training.seed": "seeds"}
# Scores in the tables: title, and ending of spaCy's name of it.
SCORES = {
    "P": "p",
    "R": "r",
    "F1": "f",
    "nested F1": "nested_f",
    "discontinuous F1": "discontinuous_f",
}
SEED_MARK: dict[str, Any] = {
    "color": "C0",
    "marker": "o",
    "markersize": 5,
    "markeredgewidth": 0,
    "linestyle": "none",
    "alpha": 0.6,
}
MEAN_MARK: dict[str, Any] = {"color": "C1", "linewidth": 2}
# Files that overrides of [paths] name; anything else there may be the name of a package.
FILE_SUFFIXES = (".json", ".jsonl", ".spacy", ".txt", ".tsv")


class StudyError(ValueError):
    """A study that cannot be run."""


@dataclass(frozen=True)
class Variant:
    """What is trained, and on what.

    name (str): Its name within the group.
    config (Path): The config.
    train (Path): The training corpus.
    dev (Path): The corpus by which the best pipeline is chosen.
    test (Optional[Path]): The corpus on which it is scored; if None, that is dev.
    overrides (dict[str, Any]): Settings that replace the config's, by their dotted names.
    problem (Optional[str]): Why it cannot be run, if that is known.
    """

    name: str
    config: Path
    train: Path
    dev: Path
    test: Path | None
    overrides: dict[str, Any]
    problem: str | None = None

    def list_files(self) -> list[Path]:
        """RETURNS (list[Path]): All files and folders that it needs."""
        named = [
            Path(value)
            for name, value in self.overrides.items()
            if name.startswith("paths.") and str(value).endswith(FILE_SUFFIXES)
        ]
        files = [self.config, self.train, self.dev, *named]
        return files if self.test is None else [*files, self.test]


@dataclass(frozen=True)
class Group:
    """Variants that are compared.

    name (str): Its name.
    x (Optional[str]): The setting whose values the variants' names are, if they are numbers.
    variants (list[Variant]): The variants.
    """

    name: str
    x: str | None
    variants: list[Variant]


@dataclass(frozen=True)
class Study:
    """A title, seeds and groups of variants, each of which is trained once a seed."""

    title: str
    seeds: list[int]
    groups: list[Group]


@dataclass(frozen=True)
class Run:
    """A training: the arguments of study_run.py, and a key by which runs are the same.

    key (str): Digest of the whole config, of the content of all files and of the versions.
    config (str): Path of the config.
    overrides (dict[str, Any]): Settings that replace the config's, by their dotted names.
    corpus (str): Path of the corpus to score it on.
    gpu_id (int): The GPU, or -1 for the CPU.
    """

    key: str
    config: str = field(compare=False)
    overrides: dict[str, Any] = field(compare=False)
    corpus: str = field(compare=False)
    gpu_id: int = field(compare=False)


@dataclass(frozen=True)
class Result:
    """What became of a variant with one seed: it has scores, or else an error.

    seed (int): The seed.
    scores (Optional[dict[str, Optional[float]]]): Scores by their names in `SCORES`.
    seconds (Optional[float]): Time of training and evaluation.
    parameters (Optional[int]): How many numbers the pipeline has learned.
    speed (Optional[float]): Words a second that it reads.
    types (dict[str, float]): F1 of each type.
    error (Optional[str]): Why there are no scores.
    is_missing (bool): Whether that is because something is missing, so that nothing was run.
    """

    seed: int
    scores: dict[str, float | None] | None = None
    seconds: float | None = None
    parameters: int | None = None
    speed: float | None = None
    types: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    is_missing: bool = False


@dataclass(frozen=True)
class Row:
    """The results of a variant.

    variant (str): Its name.
    scored_on (str): "test" or "dev".
    results (list[Result]): One for each seed.
    """

    variant: str
    scored_on: str
    results: list[Result]

    def values(self, score: str) -> list[float]:
        """RETURNS (list[float]): A score of `SCORES`, of the seeds that have it."""
        found = (result.scores[score] for result in self.results if result.scores is not None)
        return [value for value in found if value is not None]

    def mean(self, score: str) -> float | None:
        """RETURNS (Optional[float]): The mean of these values."""
        return _mean(self.values(score))

    def mean_of(self, name: str) -> float | None:
        """RETURNS (Optional[float]): The mean of another attribute of the results that have it."""
        found = (getattr(result, name) for result in self.results)
        return _mean([value for value in found if value is not None])

    def mean_of_type(self, label: str) -> float | None:
        """Average the F1 of a type.

        label (str): The type.
        RETURNS (Optional[float]): The mean over the seeds, 0 where one has none of the type; None
            if no seed has it, as where another corpus was scored.
        """
        found = [result.types for result in self.results if result.types]
        if not any(label in types for types in found):
            return None
        return _mean([types.get(label, 0.0) for types in found])

    @property
    def errors(self) -> list[Result]:
        """RETURNS (list[Result]): The results without scores."""
        return [result for result in self.results if result.error is not None]


@dataclass(frozen=True)
class Table:
    """The results of a group: see `Group`."""

    name: str
    x: str | None
    rows: list[Row]


def read_study(
    path: Path, seeds: list[int] | None = None, overrides: Mapping[str, Any] | None = None
) -> Study:
    """Read a study file.

    path (Path): The YAML file.
    seeds (Optional[list[int]]): Seeds that replace the file's.
    overrides (Optional[Mapping[str, Any]]): Settings of all variants, before those of their own.
    RETURNS (Study): The study.
    RAISES (StudyError): If it is not as it should be, with file and key.
    """
    try:
        data = srsly.read_yaml(path)
    except ValueError as err:
        raise StudyError(f"{path}: {err}") from None
    try:
        if seeds is not None:
            data = {**_check_keys(data, STUDY_KEYS, "the file"), "seeds": seeds}
        return _parse_study(data, overrides or {})
    except StudyError as err:
        raise StudyError(f"{path}: {err}") from None


def parse_overrides(values: Iterable[str]) -> dict[str, Any]:
    """Parse settings of the command line.

    values (Iterable[str]): Settings like "training.max_steps=100"; values are JSON or else strings.
    RETURNS (dict[str, Any]): Values by the settings' names.
    RAISES (StudyError): If one is not of this form.
    """
    overrides = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign:
            raise StudyError(f"--set {text}: not of the form section.name=value.")
        try:
            overrides[name.strip()] = json.loads(value)
        except ValueError:
            overrides[name.strip()] = value.strip()
    return _check_overrides(overrides, "--set")


def run_study(
    study: Study, folder: Path, *, jobs: int = 1, gpu_id: int = -1, threads: int = 1
) -> list[Table]:
    """Train and score each variant with each seed, unless that was done before.

    study (Study): The study.
    folder (Path): Where results are kept.
    jobs (int): How many runs go on at the same time.
    gpu_id (int): The GPU, or -1 for the CPU.
    threads (int): Threads of each run.
    RETURNS (list[Table]): The results of each group.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _digest.cache_clear()  # Of files that may have changed since.
    plans = {
        (group.name, variant.name, seed): _plan(variant, seed, gpu_id)
        for group in study.groups
        for variant in group.variants
        for seed in study.seeds
    }
    names: dict[Run, list[str]] = {}
    for (group_name, variant_name, seed), plan in plans.items():
        if isinstance(plan, Run):
            names.setdefault(plan, []).append(f"{group_name} / {variant_name}, seed {seed}")
    done: dict[Run, dict[str, Any]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_run, run, folder, threads): run for run in names}
        try:
            for future in as_completed(futures):
                run = futures[future]
                done[run] = future.result()
                outcome = done[run].get("error") or f"{done[run]['seconds']:.0f} s"
                count = f"{len(done)}/{len(names)}"
                print(f"{count}  {'; '.join(names[run])}: {_shorten(outcome)}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def get_result(group: Group, variant: Variant, seed: int) -> Result:
        plan = plans[group.name, variant.name, seed]
        if isinstance(plan, Result):
            return plan
        return _read_result(done[plan], seed)

    return [
        Table(
            group.name,
            group.x,
            [
                Row(
                    variant.name,
                    "dev" if variant.test is None else "test",
                    [get_result(group, variant, seed) for seed in study.seeds],
                )
                for variant in group.variants
            ],
        )
        for group in study.groups
    ]


def make_tables(title: str, tables: Iterable[Table]) -> str:
    """Write the results as Markdown.

    title (str): The study's title.
    tables (Iterable[Table]): The results of each group.
    RETURNS (str): The text.
    """
    parts = [
        f"# {title}",
        "Precision, recall and F1 in percent, means over the seeds; nested F1 is that of entities "
        "that overlap another one, in gold and prediction separately, discontinuous F1 that of "
        "entities of several fragments. The pipeline that was best on the dev corpus is scored on "
        "the corpus named in the last column. Seconds are those of one training and evaluation; "
        "words/s are those of the scored corpus that the pipeline reads a second; parameters are "
        "all that it has learned, or was given to begin with.",
    ]
    header = ["variant", *SCORES, "F1, min-max", "seeds", "seconds", "words/s", "parameters"]
    header.append("scored on")
    for table in tables:
        rows = [_make_row(row) for row in table.rows]
        parts += [
            f"## {' '.join(table.name.split())}",
            make_table(header, rows, left=(0, len(header) - 1)),
        ]
        labels = sorted({label for row in table.rows for r in row.results for label in r.types})
        if len(labels) > 1:
            rows = [
                [row.variant, *(format_percent(row.mean_of_type(label)) for label in labels)]
                for row in table.rows
                if len(row.errors) < len(row.results)
            ]
            parts.append(make_table(["F1 of each type", *labels], rows))
    return "\n\n".join(parts) + "\n"


def plot(title: str, tables: Sequence[Table], paths: Iterable[Path]) -> None:
    """Draw the F1 of all groups, a panel for each: a line over the values of a setting, or a mark
    for each variant.

    title (str): The study's title.
    tables (Sequence[Table]): The results of each group.
    paths (Iterable[Path]): The files to write; their suffixes tell the format.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [title, *(name for t in tables for name in (t.name, *(r.variant for r in t.rows)))]
    settings = {
        "font.family": ["DejaVu Sans", *_find_fonts("".join(names))],
        "svg.fonttype": "none",
        "text.parse_math": False,  # A dollar sign is one.
    }
    n_columns = 2 if len(tables) == 4 else min(len(tables), 3)
    n_rows = -(-len(tables) // n_columns)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # Said by _find_fonts.
        figure = Figure((4.2 * n_columns, 3.4 * n_rows + 0.5), layout="constrained")
        panels = [*figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).flat]
        for panel, table in zip(panels, tables, strict=False):
            _draw(panel, table)
        for panel in panels[len(tables) :]:
            panel.remove()
        figure.suptitle(title)
        marks = [Line2D([], [], **SEED_MARK), Line2D([], [], **MEAN_MARK)]
        figure.legend(marks, ["one seed", "mean"], loc="outside lower center", ncols=2)
        for path in paths:
            figure.savefig(path, dpi=150)


def _parse_study(data: Any, overrides: Mapping[str, Any]) -> Study:
    data = _check_keys(data, STUDY_KEYS, "the file")
    title = _check_text(data.get("title"), "title")
    seeds = data.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise StudyError(f"seeds: not a list of whole numbers: {seeds!r}.")
    if len({*seeds}) < len(seeds):
        raise StudyError(f"seeds: one is there twice: {seeds}.")
    shared = _merge({}, data, "")
    groups = data.get("groups")
    if not isinstance(groups, list) or not groups:
        raise StudyError("groups: not a list of groups.")
    parsed = [
        _parse_group(group, f"groups[{i}]", shared, overrides) for i, group in enumerate(groups)
    ]
    names = [group.name for group in parsed]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"groups: two are named {name!r}.")
    return Study(title, seeds, parsed)


def _parse_group(
    data: Any, where: str, shared: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Group:
    data = _check_keys(data, GROUP_KEYS, where)
    name = _check_text(data.get("name"), f"{where}.name")
    where = f"{where} ({name})"
    settings = _merge(shared, data, f"{where}.")
    x = data.get("x")
    variants = data.get("variants")
    if not isinstance(variants, Mapping) or not variants:
        raise StudyError(f"{where}.variants: not an object of variants.")
    parsed = []
    for key, variant in variants.items():
        if isinstance(key, bool) or not isinstance(key, str | int | float):
            raise StudyError(f"{where}.variants: {key!r} is no name. Put it in quotes.")
        place = f"{where}.variants.{key}"
        variant = _check_keys({} if variant is None else variant, SETTINGS, place)
        own = _merge(settings, variant, f"{place}.")
        own["overrides"] = {**own["overrides"], **overrides}
        parsed.append(_make_variant(str(key), own, place))
    if len({variant.name for variant in parsed}) < len(parsed):
        raise StudyError(f"{where}.variants: two have the same name.")
    if x is not None:
        x = _check_text(x, f"{where}.x")
        if all(_as_number(variant.name) is None for variant in parsed):
            raise StudyError(f"{where}.x: no variant's name is a number.")
    return Group(name, x, parsed)


def _make_variant(name: str, settings: Mapping[str, Any], where: str) -> Variant:
    for key in ("config", "train", "dev"):
        if settings.get(key) is None:
            raise StudyError(f"{where}: no {key}, neither here nor for the group or the study.")
    config, train, dev = (Path(settings[key]) for key in ("config", "train", "dev"))
    test = settings.get("test")
    return Variant(name, config, train, dev, test and Path(test), settings["overrides"])


def _merge(outer: Mapping[str, Any], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of the study or group, replaced by those given for a group or variant."""
    settings = dict(outer)
    for key in ("config", "train", "dev", "test"):
        if key in data:
            value = data[key]
            # "test" may be taken back.
            is_none = value is None and key == "test"
            settings[key] = None if is_none else _check_text(value, f"{where}{key}")
    overrides = _check_overrides(data.get("overrides"), f"{where}overrides")
    settings["overrides"] = {**outer.get("overrides", {}), **overrides}
    return settings


def _check_keys(data: Any, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise StudyError(f"{where}: not an object but {data!r}.")
    for key in data:
        if key not in keys:
            raise StudyError(f"{where}: unknown key {key!r}. Known ones: {', '.join(keys)}.")
    return data


def _check_text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise StudyError(f"{where}: not a text but {value!r}.")
    return value


def _check_overrides(overrides: Any, where: str) -> dict[str, Any]:
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise StudyError(f"{where}: not an object but {overrides!r}.")
    for name, value in overrides.items():
        if not isinstance(name, str) or not all(name.split(".")) or "." not in name:
            raise StudyError(f"{where}: {name!r} is no setting, like training.max_steps.")
        if name in RESERVED:
            raise StudyError(f"{where}: {name} is set by the study's {RESERVED[name]}.")
        if not isinstance(value, str | int | float | bool | list | None):
            raise StudyError(f"{where}: {name} is neither a number, a text nor a list: {value!r}.")
    return dict(overrides)


def _plan(variant: Variant, seed: int, gpu_id: int) -> Run | Result:
    """A run, or the result of a variant that cannot be run."""
    missing = [str(path) for path in variant.list_files() if not path.exists()]
    problem = f"missing {', '.join(missing)}" if missing else variant.problem
    if problem is not None:
        return Result(seed, error=problem, is_missing=True)
    overrides = {
        **variant.overrides,
        "paths.train": str(variant.train),
        "paths.dev": str(variant.dev),
        "training.seed": seed,
    }
    try:
        config = load_config(variant.config, overrides=overrides, interpolate=True)
    except ValueError as err:
        return Result(seed, error=f"{variant.config}: {err}")
    corpus = variant.dev if variant.test is None else variant.test
    files = {*map(str, variant.list_files()), *_list_paths(config)}
    content = {
        "config": _normalise(config),
        "files": {text: _digest(text) for text in sorted(files)},
        "corpus": _digest(str(corpus)),
        "device": "cpu" if gpu_id < 0 else "gpu",
        "versions": [spacy.__version__, __version__],
    }
    key = hashlib.sha256(srsly.json_dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return Run(key, str(variant.config), overrides, str(corpus), gpu_id)


def _run(run: Run, folder: Path, threads: int) -> dict[str, Any]:
    """What study_run.py makes of a run, or made of it before. Failures are not kept."""
    kept = folder / f"{run.key}.json"
    if kept.exists():
        return srsly.read_json(kept)
    work = folder / run.key
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    arguments = asdict(run)
    del arguments["key"]
    srsly.write_json(work / "run.json", arguments)
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    log = folder / f"{run.key}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.run(
            [sys.executable, Path(__file__).with_name("study_run.py"), work],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(variables, str(threads))},
        )
    path = work / "result.json"
    if path.exists():
        result = srsly.read_json(path)
    else:
        result = {"error": f"the process ended with status {process.returncode}"}
    shutil.rmtree(work)
    if "error" in result:
        return {"error": f"{result['error']} (see {log})"}
    result = {**arguments, **result}
    part = kept.with_suffix(".part")
    srsly.write_json(part, result)
    part.replace(kept)  # In one step: what is there is whole.
    return result


def _read_result(result: Mapping[str, Any], seed: int) -> Result:
    if "error" in result:
        return Result(seed, error=result["error"])
    scores = {name: result["scores"].get(f"spans_mtlner_{end}") for name, end in SCORES.items()}
    speed = result["scores"].get("speed")
    per_type = result["scores"].get("spans_mtlner_per_type") or {}
    types = {label: score["f"] for label, score in per_type.items()}
    return Result(seed, scores, result["seconds"], result.get("parameters"), speed, types)


def _normalise(value: Any) -> Any:
    """A setting such that 1.0 is the same as 1."""
    if isinstance(value, Mapping):
        return {key: _normalise(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normalise(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _list_paths(value: Any) -> Iterator[str]:
    """All texts in a config that are paths of files or folders."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _list_paths(item)
    elif isinstance(value, str) and ("/" in value or os.sep in value) and os.path.exists(value):
        yield value


@cache
def _digest(path: str) -> str:
    """Digest of a file, or of all files of a folder."""
    top = Path(path)
    files = sorted(file for file in top.rglob("*") if file.is_file()) if top.is_dir() else [top]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(top)}\n{file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _make_row(row: Row) -> list[str]:
    values = row.values("F1")
    total, n_done = len(row.results), len(row.results) - len(row.errors)
    name = row.variant
    if row.errors:
        reasons = [
            f"{'not run' if result.is_missing else 'failed'}: {_shorten(result.error or '')}"
            for result in row.errors
        ]
        name = "; ".join([name, *dict.fromkeys(reasons)])
    seconds, speed = row.mean_of("seconds"), row.mean_of("speed")
    return [
        name,
        *(format_percent(row.mean(score)) for score in SCORES),
        f"{format_percent(min(values))}-{format_percent(max(values))}" if values else "-",
        f"{n_done}" if n_done == total else f"{n_done} of {total}",
        "-" if seconds is None else f"{seconds:.0f}",
        "-" if speed is None else f"{speed:.0f}",
        _format_count(row.mean_of("parameters")),
        row.scored_on,
    ]


def _format_count(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}M"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shorten(text: str, length: int = 200) -> str:
    """A text on one line, without its middle if it is long."""
    text = " ".join(text.split())
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def _as_number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _draw(panel: "Axes", table: Table) -> None:
    """Draw a group: each seed is a dot, beside others of the same value, and each mean a bar, or a
    point of a line. Variants of a numeric group without a number stand on the right.
    """
    numbers = [_as_number(row.variant) if table.x else None for row in table.rows]
    known = sorted({number for number in numbers if number is not None})
    gap = min((b - a for a, b in pairwise(known)), default=1.0)
    step = max(gap, (known[-1] - known[0]) / 8) if len(known) > 1 else 1.0
    end = known[-1] if known else -1.0
    positions = []
    for number in numbers:
        if number is None:
            end += step
        positions.append(end if number is None else number)
    for position, row in zip(positions, table.rows, strict=True):
        values = [100 * value for value in row.values("F1")]
        if not values:
            continue
        n_seeds = len(values)
        shifts = [step * 0.12 * (i - (n_seeds - 1) / 2) / n_seeds for i in range(n_seeds)]
        dots = [position + shift for shift in shifts]
        panel.plot(dots, values, **SEED_MARK)
        mean = sum(values) / n_seeds
        panel.plot([position - 0.2 * step, position + 0.2 * step], [mean, mean], **MEAN_MARK)
    line = sorted(
        (number, 100 * mean)
        for number, row in zip(numbers, table.rows, strict=True)
        if number is not None and (mean := row.mean("F1")) is not None
    )
    panel.plot([x for x, _ in line], [y for _, y in line], color="C1", lw=1)
    labels = [
        row.variant if row.values("F1") else f"{row.variant}\n(not run)" for row in table.rows
    ]
    widths = [len(line.encode("gbk", "replace")) for label in labels for line in label.split("\n")]
    is_wide = max(widths) * len(labels) > 40
    panel.set_xticks(
        positions, labels, rotation=30 if is_wide else 0, ha="right" if is_wide else "center"
    )
    panel.set_xlim(min(positions) - step / 2, max(positions) + step / 2)
    panel.set_title(table.name, fontsize="medium")
    panel.set_xlabel(table.x or "")
    panel.set_ylabel("F1, %")
    panel.tick_params(labelleft=True)
    panel.grid(axis="y", alpha=0.3)


def _find_fonts(text: str) -> list[str]:
    """Installed fonts for those characters of a text that matplotlib's own font does not have."""
    from matplotlib import font_manager

    missing = {ord(char) for char in text if not char.isspace()}
    missing -= font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap().keys()
    found = []
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: "Sans" not in font.name):
        if not missing:
            break
        if font.name.startswith("Last Resort"):  # Matplotlib's own: boxes for all characters.
            continue
        try:
            known = missing & font_manager.get_font(font.fname).get_charmap().keys()
        except (OSError, RuntimeError):  # Not every font can be read.
            continue
        if known:
            found.append(font.name)
            missing -= known
    if missing:
        chars = "".join(map(chr, sorted(missing)[:10]))
        msg.warn(f"No installed font has {chars}: they are boxes in the PNG, but not in the SVG.")
    return found


def run_and_report(
    study: Study, output: Path, *, jobs: int = 1, gpu_id: int = -1, threads: int = 1
) -> None:
    """Run a study, write the results and tell what went wrong; ends the command after a failure.

    study (Study): The study.
    output (Path): The folder to write into.
    jobs (int): How many runs go on at the same time.
    gpu_id (int): The GPU, or -1 for the CPU.
    threads (int): Threads of each run.
    """
    tables = run_study(study, output / "runs", jobs=jobs, gpu_id=gpu_id, threads=threads)
    text = make_tables(study.title, tables)
    (output / "study.md").write_text(text, encoding="utf-8")
    data = {"title": study.title, "groups": [asdict(table) for table in tables]}
    srsly.write_json(output / "study.json", data)
    plot(study.title, tables, [output / "study.png", output / "study.svg"])
    print(text)
    msg.good(f"Wrote {output}/study.md, .json, .png and .svg")
    errors = [error for table in tables for row in table.rows for error in row.errors]
    missing = dict.fromkeys(error.error for error in errors if error.is_missing)
    if missing:
        msg.warn("Some variants were not run", "\n".join(map(str, missing)))
    failed = dict.fromkeys(error.error for error in errors if not error.is_missing)
    if failed:
        msg.fail("Some runs failed", "\n".join(_shorten(str(text)) for text in failed), exits=1)


def check_matplotlib() -> None:
    """End the command if there is no matplotlib for the plot."""
    if importlib.util.find_spec("matplotlib") is None:
        hint = 'Install it: pip install -c constraints.txt -e ".[plots]"'
        msg.fail("The plot needs matplotlib", hint, exits=1)


def parse_seeds(text: str) -> list[int]:
    """Read the option --seeds; ends the command if it is not numbers.

    text (str): Seeds as "0,1,2".
    RETURNS (list[int]): The seeds.
    """
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        msg.fail(f"--seeds {text}: not whole numbers with commas between them.", exits=1)
        raise  # Not reached.


def main(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, .yml")],
    output: Annotated[Path, typer.Option(help="Folder to write results into")],
    seeds: Annotated[str | None, typer.Option(help="Seeds, as 0,1,2; replace the study's")] = None,
    jobs: Annotated[int, typer.Option(help="How many runs go on at the same time", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each run", min=1)] = 1,
    gpu_id: Annotated[int, typer.Option(help="GPU, or -1 for the CPU")] = -1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of all variants, as training.max_steps=100"),
    ] = None,
) -> None:
    check_matplotlib()
    numbers = None if seeds is None else parse_seeds(seeds)
    try:
        study = read_study(path, numbers, parse_overrides(settings or []))
    except (StudyError, OSError) as err:
        msg.fail(str(err), exits=1)
    run_and_report(study, output, jobs=jobs, gpu_id=gpu_id, threads=threads)


if __name__ == "__main__":
    app = typer.Typer(rich_markup_mode=None)
    app.command(help=__doc__)(main)
    app()
