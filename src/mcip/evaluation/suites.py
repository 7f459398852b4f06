"""Suites: which benchmarks are measured together, and the mean over the columns of the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from open_clip import OPENAI_IMAGENET_TEMPLATES

from mcip.core.choices import check_choice
from mcip.core.errors import ConfigError
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Benchmark
from mcip.evaluation.dataset_roots import AbsentError, Places
from mcip.evaluation.own_tasks import own_tasks
from mcip.evaluation.presets import PRESETS, Preset, PresetName
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import Task, check_keys, task_from

# The columns of Table 1 (Schall et al., SISAP 2024), in its order, and the benchmark of each.
TABLE1: Final[dict[str, str]] = {
    "GPR1200": "gpr1200",
    "INSTRE": "instre",
    "CUB200": "cub",
    "ROxford": "roxford",
    "kNN IN-V": "knn-imagenet",
    "kNN IN-S": "knn-imagenet-sketch",
    "kNN IN-A": "knn-imagenet-a",
    "kNN FGVCA": "knn-aircraft",
    "ZS IN-V": "zero-shot-imagenet",
    "ZS IN-S": "zero-shot-imagenet-sketch",
    "ZS IN-A": "zero-shot-imagenet-a",
    "ZS ObjectNet": "zero-shot-objectnet",
    "T2I Flickr30k": "flickr30k",
    "T2I COCO": "coco",
}
_COLUMN_OF: Final = {benchmark: column for column, benchmark in TABLE1.items()}
# Images of each benchmark in the suite "quick".
QUICK_IMAGES: Final = 1_000
SUITES: Final[dict[str, tuple[str, ...]]] = {
    "table1": tuple(TABLE1.values()),
    "extended": tuple(BENCHMARKS),
    "quick": tuple(TABLE1.values()),
}
# Written out once, so that a results file says which sentences were used.
_TEMPLATES: Final = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


@dataclass(frozen=True)
class Suite:
    """What is to be measured.

    Attributes:
        name: How results files call it.
        tasks: What is there.
        missing: What is left out, each with the benchmark's name (None for a task of a table), title, column and the
            reason.
        preset: The protocol of the benchmarks; None where there are none.
    """

    name: str
    tasks: list[Task]
    missing: tuple[Mapping[str, Any], ...] = ()
    preset: PresetName | None = None

    def present(self, sources: Sources) -> Suite:
        """The suite without the benchmarks of which a file or folder is missing; they are read.

        Raises:
            AbsentError: None of them is whole.
        """
        tasks: list[Task] = []
        missing = list(self.missing)
        absent: AbsentError | None = None
        for task in self.tasks:
            try:
                if task.benchmark is not None:
                    sources.whole(task)
                tasks.append(task)
            except AbsentError as error:
                absent = error
                missing.append(_missing(BENCHMARKS[str(task.benchmark)], str(error)))
        if absent is not None and not tasks:
            raise absent
        return replace(self, tasks=tasks, missing=tuple(missing))


def find_suite(
    suite: str,
    data: str | None,
    preset: PresetName = "paper",
    split: str | None = None,
    index_split: str | None = None,
    index_data: str | None = None,
    sources: Sources | None = None,
    columns: str | None = None,
) -> Suite:
    """The tasks of a suite, as far as their data are there; see `mcip.evaluate`.

    Raises:
        ConfigError: There is no such suite, it cannot be read, or none of its benchmarks is there.
    """
    names = SUITES.get(suite, (suite,) if suite in BENCHMARKS else ())
    if columns is not None and suite != "own":
        raise ConfigError(
            f"columns are those of a table, which the suite 'own' measures; the suite is {suite!r}. In a YAML suite "
            "each task has its own key `columns`."
        )
    if names:
        return _benchmark_suite(suite, names, data, preset)
    if suite != "own":
        return _yaml_suite(suite, data, preset)
    if data is None:
        raise ConfigError("The suite 'own' needs a table: pass --data.")
    table = (sources or Sources()).table(data, split, columns=columns)
    return Suite("own", *own_tasks(table, data, split, index_split, index_data, columns))


def _benchmark_suite(suite: str, names: Sequence[str], data: str | None, preset: PresetName) -> Suite:
    if data is None:
        raise ConfigError(f"The suite {suite!r} needs the benchmarks' folder: pass --data.")
    places, protocol = Places(data), PRESETS[preset]
    benchmarks = [BENCHMARKS[name] for name in names]
    reasons = {
        benchmark.name: [why for need in benchmark.needs if (why := places.missing(need))] for benchmark in benchmarks
    }
    limit = QUICK_IMAGES if suite == "quick" else None
    tasks = [
        benchmark_task(benchmark, data, protocol, limit) for benchmark in benchmarks if not reasons[benchmark.name]
    ]
    missing = tuple(
        _missing(benchmark, "; ".join(reasons[benchmark.name])) for benchmark in benchmarks if reasons[benchmark.name]
    )
    if not tasks:
        raise ConfigError(
            f"None of the benchmarks of the suite {suite!r} is in {data}; the first is missing because "
            f"{missing[0]['reason']}. docs/evaluation.md shows the layout."
        )
    return Suite(suite, tasks, missing, preset)


def _missing(benchmark: Benchmark, reason: str) -> dict[str, Any]:
    column = _COLUMN_OF.get(benchmark.name)
    return {"benchmark": benchmark.name, "title": benchmark.title, "column": column, "reason": reason}


def benchmark_task(benchmark: Benchmark, data: str, preset: Preset, limit: int | None = None) -> Task:
    """The task of a benchmark by a preset's protocol."""
    images = benchmark.kind in ("i2i", "knn")
    return Task(
        benchmark.title, benchmark.kind, data,
        transform=preset.image_transform if images else preset.text_transform,
        exclude_self=preset.exclude_self or benchmark.self_match == "excluded",
        drop_first=not preset.exclude_self and benchmark.self_match == "first dropped",
        templates=_TEMPLATES if benchmark.kind == "zero-shot" else (),
        metric=benchmark.metric, benchmark=benchmark.name, preset=preset.name,
        column=_COLUMN_OF.get(benchmark.name), limit=limit,
    )  # fmt: skip


def table1_average(measured: Mapping[str, float]) -> float | None:
    """The paper's AVG: the plain mean of the 14 columns; None unless all of them are there.

    Args:
        measured: Column key to value.
    """
    values = [measured[column] for column in TABLE1 if column in measured]
    return float(np.mean(values)) if len(values) == len(TABLE1) else None


def _yaml_suite(suite: str, data: str | None, preset: PresetName) -> Suite:
    known: Sequence[str] = ("own", *SUITES, *BENCHMARKS)
    path = Path(suite)
    if not path.is_file():
        near = get_close_matches(suite, known, n=1)
        hint = f"did you mean {near[0]!r}? There are" if near else "give"
        raise ConfigError(
            f"There is no suite {suite}: {hint} own, {', '.join(SUITES)}, the name of one benchmark "
            f"({', '.join(BENCHMARKS)}), or a YAML file with a list of tasks."
        )
    # A suite of benchmarks has the preset in its file's name, as the suites above.
    tasks = read_suite(path, data, preset)
    presets = {task.preset for task in tasks}
    return Suite(path.stem, tasks, preset=presets.pop() if len(presets) == 1 else None)


def read_suite(path: str | Path, data: str | None = None, preset: PresetName = "paper") -> list[Task]:
    """Read tasks from a YAML file: a list of mappings with the keys of `Task`.

    A mapping with the key `benchmark` needs no other: what it leaves out is the benchmark's, by the protocol of its
    preset.

    Args:
        path: The file.
        data: Where the data of tasks lie that do not say it.
        preset: The protocol of benchmarks that do not say it.

    Raises:
        ConfigError: The file is missing, is no list of tasks, or names a task twice.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the suite {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path} must be a list of tasks, each with name, kind and data, or with a benchmark.")
    tasks = [_task(entry, data, preset, f"{path}, task {number}") for number, entry in enumerate(entries, 1)]
    names = [task.name for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} has two tasks with the name {twice[0]!r}.")
    return tasks


def _task(entry: Mapping[str, Any], data: str | None, preset: PresetName, where: str) -> Task:
    check_keys(entry, where)
    given = ({} if data is None else {"data": data}) | dict(entry)
    name = entry.get("benchmark")
    if name is None:
        return task_from(given, where)
    if not isinstance(name, str) or name not in BENCHMARKS:
        raise ConfigError(f"{where}: there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}.")
    protocol: Any = entry.get("preset", preset)
    check_choice(f"{where}: preset", protocol, PresetName)
    if "data" not in given:
        raise ConfigError(f"{where}: data missing: the benchmarks' folder, in the task or as --data.")
    default = benchmark_task(BENCHMARKS[name], str(given["data"]), PRESETS[protocol])
    return task_from(default.as_dict() | given, where)
