"""Results to compare, made without evaluating anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcip.evaluation.tasks import Kind, Task
from mcip.reporting.results import Measured, Results

_KINDS: dict[str, Kind] = {"birds": "i2i", "shops": "i2i", "names": "zero-shot", "search": "t2i"}


def results(model: str, **values: float | None) -> Results:
    """Results in percent, by task; a task that is None is left out."""
    measured = {}
    for name, value in values.items():
        if value is not None:
            task = Task(name, _KINDS.get(name, "i2i"), "data")
            measured[name] = Measured(task, "hash", task.headline, {task.headline: value / 100})
    return Results(model, f"from/{model}", "f" * 64, "own", (Path("nowhere"),), measured)


def three() -> list[Results]:
    return [
        results("base", birds=20, shops=30, names=50, search=60),
        results("a&b", birds=60, shops=70, names=40, search=44),
        results("c_d", birds=50, shops=70.04, names=52, search=60.004),
    ]


def of_table1(model: str, value: float, **columns: Any) -> Results:
    """Results at two columns of the paper under names of their own, or at those with the changes given."""
    measured = {}
    changes = columns or {"GPR1200": {}, "ZS IN-A": {}}
    kinds: dict[str, Kind] = {"GPR1200": "i2i", "ZS IN-A": "zero-shot"}
    for key, change in changes.items():
        task = Task(f"my {key}", kinds[key], "data", column=key, **({"preset": "paper"} | change))
        measured[task.name] = Measured(task, "hash", task.headline, {task.headline: value / 100}, official=True)
    return Results(model, "x", "f" * 64, "table1", (), measured)
