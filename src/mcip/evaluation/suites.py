"""Suites: which benchmarks are measured together, and the mean over the columns of the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES

from mcip.core.errors import ConfigError
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Benchmark
from mcip.evaluation.dataset_roots import AbsentError, Places
from mcip.evaluation.presets import PRESETS, Preset, PresetName
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import Task, own_tasks, read_suite

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
        missing: The benchmarks that are not, each with its name, title, column and the reason.
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
) -> Suite:
    """The tasks of a suite, as far as their data are there; see `mcip.evaluate`.

    Raises:
        ConfigError: There is no such suite, it cannot be read, or none of its benchmarks is there.
    """
    names = SUITES.get(suite, (suite,) if suite in BENCHMARKS else ())
    if not names:
        return _own_suite(suite, data, split, index_split)
    if data is None:
        raise ConfigError(f"The suite {suite!r} needs the benchmarks' folder: pass --data.")
    places, protocol = Places(data), PRESETS[preset]
    asked = [BENCHMARKS[name] for name in names]
    reasons = {one.name: [why for need in one.needs if (why := places.missing(need))] for one in asked}
    limit = QUICK_IMAGES if suite == "quick" else None
    tasks = [benchmark_task(one, data, protocol, limit) for one in asked if not reasons[one.name]]
    missing = tuple(_missing(one, "; ".join(reasons[one.name])) for one in asked if reasons[one.name])
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


def _own_suite(suite: str, data: str | None, split: str | None, index_split: str | None) -> Suite:
    if suite == "own":
        if data is None:
            raise ConfigError("The suite 'own' needs a table: pass --data.")
        return Suite("own", own_tasks(data, split, index_split))
    known: Sequence[str] = ("own", *SUITES, *BENCHMARKS)
    if not Path(suite).is_file():
        near = get_close_matches(suite, known, n=1)
        hint = f"did you mean {near[0]!r}? There are" if near else "give"
        raise ConfigError(
            f"There is no suite {suite}: {hint} own, {', '.join(SUITES)}, the name of one benchmark "
            f"({', '.join(BENCHMARKS)}), or a YAML file with a list of tasks."
        )
    return Suite(Path(suite).stem, read_suite(suite))
