"""The rows of the paper's Table 1, to stand beside one's own models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from mcip.evaluation.tasks import Task
from mcip.reporting.results import Measured, Results

# Appended to the names of the paper's models, so that no model of one's own has the same.
MARK = "(paper)"


@cache
def table1() -> dict[str, Any]:
    """The data file: `columns` with key, kind and metric, and `rows` with model, values in percent, and the AVG."""
    text = resources.files("mcip.reporting").joinpath("paper_table1.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def paper_rows(own: Sequence[Results]) -> list[Results]:
    """The paper's models, their columns under the names that the tasks of `own` have."""
    content = table1()
    tasks = [_task(column, content["preset"], own) for column in content["columns"]]
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
    ]  # fmt: skip


def unlike_paper(own: Sequence[Results]) -> list[str]:
    """A sentence for each measurement that stands in a column of the paper but was made otherwise."""
    found = []
    for results in own:
        for name, one in results.measured.items():
            if one.task.column is None:
                continue
            why = [
                reason
                for reason, applies in (
                    (f"by the preset {one.task.preset!r}", one.task.preset != "paper"),
                    ("on a subsample", one.task.limit is not None),
                    ("not on the official release", one.official is False),
                )
                if applies
            ]
            if why:
                how = ", ".join(why)
                found.append(f"{name} of {results.model} was measured {how}: do not compare it with the paper's rows.")
    return found


def _task(column: dict[str, str], preset: Any, own: Sequence[Results]) -> Task:
    """The task of a column of the paper: that of `own` where one of them has it."""
    key: Any = column["key"]
    names = {name: one.task for results in own for name, one in results.measured.items()}
    for task in names.values():
        if task.column == key:
            return task
    name = key if key not in names else f"{key} {MARK}"
    kind: Any = column["kind"]
    split = "train" if kind == "knn" else None
    return Task(name, kind, "", index_split=split, metric=column["metric"], preset=preset, column=key)
