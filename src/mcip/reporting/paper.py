"""Published rows, to stand beside measured models: those of the paper's Table 1, and of i-CIR's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any, Final

from mcip.evaluation.tasks import Task
from mcip.reporting.results import Measured, Results

# Appended to the names of the paper's models, so that no measured model has the same.
MARK = "(paper)"


_ICIR: Final = Results(
    f"CLIP ViT-L/14 {MARK}",
    "Psomas et al.: Instance-Level Composed Image Retrieval, NeurIPS 2025, arXiv 2510.25387",
    "", "icir", (), {}, paper=True,
    note="BASIC here is without query expansion; with it the paper has 31.6. Texts are put into the context of "
    "subjects, and centers are those of LAION.",
)  # fmt: skip
_ICIR_MAP: Final = {"text": 0.0301, "image": 0.0304, "sum": 0.0820, "product": 0.1748, "basic": 0.3435}


@cache
def table1() -> dict[str, Any]:
    """The data file: `columns` with key, kind and metric, and `rows` with model, values in percent, and the AVG."""
    text = resources.files("mcip.reporting").joinpath("paper_table1.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def paper_rows(measured: Sequence[Results]) -> list[Results]:
    """The paper's models, their columns under the names that the tasks of `measured` have."""
    others = []
    icir = [entry.task for results in measured for entry in results.measured.values() if entry.task.benchmark == "icir"]
    if icir:
        values = {f"map_{rule}": value for rule, value in _ICIR_MAP.items()}
        others = [replace(_ICIR, measured={icir[0].name: Measured(icir[0], "", icir[0].headline, values)})]
    content = table1()
    tasks = [_task(column, content["preset"], measured) for column in content["columns"]]
    return [
        Results(
            f"{row['model']} {MARK}", content["source"], "", "table1", (),
            {
                task.name: Measured(task, "", task.headline, {task.headline: value / 100})
                for task, value in zip(tasks, row["values"], strict=True)
            },
            paper=True, note=row.get("note", ""),
        )
        for row in content["rows"]
    ] + others  # fmt: skip


def _task(column: dict[str, str], preset: Any, measured: Sequence[Results]) -> Task:
    """The task of a column of the paper: that of `measured` where one of them has it."""
    key: Any = column["key"]
    tasks = {name: entry.task for results in measured for name, entry in results.measured.items()}
    for task in tasks.values():
        if task.column == key:
            return task
    name = key if key not in tasks else f"{key} {MARK}"
    kind: Any = column["kind"]
    split = "train" if kind == "knn" else None
    return Task(name, kind, "", index_split=split, metric=column["metric"], preset=preset, column=key)
