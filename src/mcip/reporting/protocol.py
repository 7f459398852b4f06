"""How the numbers were measured, in words: the protocol of each task, and all metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from mcip.evaluation.tasks import Task
from mcip.reporting.comparison import Comparison
from mcip.reporting.diagnostics import diagnostics_table
from mcip.reporting.results import Measured
from mcip.reporting.words import KIND_WORDS, metric_word

_TEMPLATES_SHOWN = 5


class Facts(NamedTuple):
    """A table of texts: its name, the heads of its columns and its rows."""

    name: str
    heads: list[str]
    rows: list[list[str]]


def model_facts(comparison: Comparison) -> Facts:
    """Where the models come from."""
    rows = [
        [result.model, result.source, result.fingerprint[:12] or "not measured here", result.suite]
        for result in comparison.results
    ]
    return Facts("Models", ["model", "loaded from", "weights (SHA-256)", "suite"], rows)


def task_facts(comparison: Comparison) -> Facts:
    """How each task that was measured here is defined."""
    rows = [
        [name, KIND_WORDS[task.kind], task.data, _split(task.split), task.transform, protocol_of(task)]
        for name, task in ((name, measured.task) for name, measured in comparison.tasks.items())
        if any(name in result.measured for result in comparison.results if not result.paper)
    ]
    return Facts("Tasks", ["task", "kind", "data", "queries", "transform", "protocol"], rows)


def diagnostic_facts(comparison: Comparison) -> Facts | None:
    """How images and captions lie in the models' spaces; None where it was not measured."""
    heads, rows = diagnostics_table(comparison.results)
    return Facts("Images and captions in the joint space", heads, rows) if rows else None


def metric_facts(comparison: Comparison) -> Facts:
    """All metrics of each task of each model that was measured here."""
    rows = [
        [result.model, name, _metrics(measured)]
        for result in comparison.results
        for name, measured in result.measured.items()
        if not result.paper
    ]
    return Facts("All metrics", ["model", "task", "metrics in %"], rows)


def protocol_of(task: Task) -> str:
    """What else defines a task's numbers, in words."""
    return "; ".join(_protocol(task))


def _protocol(task: Task) -> Iterator[str]:
    if task.benchmark is not None:
        subsample = "" if task.limit is None else f", on a subsample of about {task.limit:,} images"
        yield f"benchmark {task.benchmark} by the {task.preset} protocol{subsample}"
    elif task.kind in ("i2i", "knn", "zero-shot"):
        yield f"classes: {task.label}"
    if task.kind == "i2i":
        if task.drop_first:
            yield "the first of every ranking is dropped"
        else:
            yield (
                "the query is left out of its own ranking"
                if task.exclude_self
                else "the query stays in its own ranking"
            )
    elif task.kind == "zero-shot":
        yield f"templates: {_templates(task)}"
    elif task.benchmark is None:
        yield {
            "knn": f"votes: {_split(task.index_split)}",
            "t2i": "every caption is a query",
            "i2t": "every image with captions is a query",
            "composed": "each object has its own gallery",
        }[task.kind]


def _split(split: str | None) -> str:
    return "all rows" if split is None else f"split {split}"


def _templates(task: Task) -> str:
    rest = len(task.templates) - _TEMPLATES_SHOWN
    return ", ".join(task.templates[:_TEMPLATES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _metrics(measured: Measured) -> str:
    return ", ".join(
        f"{metric_word(name)} {100 * value:.2f}" if math.isfinite(value) else f"{metric_word(name)} -"
        for name, value in measured.metrics.items()
    )
