"""The section of the page that says how its numbers were made."""

from __future__ import annotations

import math

from mcip.evaluation.tasks import Task
from mcip.reporting.comparison import KIND_WORDS, METRIC_WORDS, Comparison
from mcip.reporting.markup import Html, tag
from mcip.reporting.results import Measured

_TEMPLATES_SHOWN = 5


def made_section(comparison: Comparison) -> Html:
    """Where the models come from, how each task was asked, and all metrics."""
    models = [
        [result.model, result.source, result.fingerprint[:12] or "not measured here", result.suite]
        for result in comparison.results
    ]
    own = {name for result in comparison.results if not result.paper for name in result.measured}
    tasks = [_protocol(one) for name, one in comparison.tasks.items() if name in own]
    measured = [
        [result.model, name, *_metrics(one)]
        for result in comparison.results
        for name, one in result.measured.items()
        if not result.paper
    ]
    asked = ["task", "kind", "data", "queries", "transform", "protocol"]
    return tag(
        "section",
        tag("h2", "How it was made"),
        tag("h3", "Models"),
        _table("Models", ["model", "loaded from", "weights (SHA-256)", "suite"], models),
        tag("h3", "Tasks"),
        _table("Tasks", asked, tasks),
        tag(
            "details", tag("summary", "All metrics"), _table("All metrics", ["model", "task", "metrics in %"], measured)
        ),
        class_="made",
    )


def _protocol(one: Measured) -> list[str]:
    task = one.task
    return [task.name, KIND_WORDS[task.kind], task.data, _rows(task.split), task.transform, how_asked(task)]


def _rows(split: str | None) -> str:
    return "all rows" if split is None else f"split {split}"


def how_asked(task: Task) -> str:
    """What else defines a task's numbers, in words."""
    if task.benchmark is not None:
        return "; ".join([_preset(task), *_own_ranking(task), *_templates(task)])
    if task.kind == "i2i":
        return "; ".join([f"classes: {task.label}", *_own_ranking(task)])
    if task.kind == "knn":
        return f"classes: {task.label}; votes: {_rows(task.index_split)}"
    if task.kind == "zero-shot":
        return "; ".join([f"classes: {task.label}", *_templates(task)])
    return "every caption is a query" if task.kind == "t2i" else "every image with captions is a query"


def _preset(task: Task) -> str:
    drawn = "" if task.limit is None else f", on a subsample of about {task.limit:,} images"
    return f"benchmark {task.benchmark} by the {task.preset} protocol{drawn}"


def _own_ranking(task: Task) -> list[str]:
    """What happens to a query in its own ranking."""
    if task.kind != "i2i":
        return []
    if task.drop_first:
        return ["the first of every ranking is dropped"]
    return ["the query is left out of its own ranking" if task.exclude_self else "the query stays in its own ranking"]


def _templates(task: Task) -> list[str]:
    if task.kind != "zero-shot":
        return []
    shown = ", ".join(task.templates[:_TEMPLATES_SHOWN])
    rest = len(task.templates) - _TEMPLATES_SHOWN
    return [f"templates: {shown}" + (f" and {rest} more" if rest > 0 else "")]


def _metrics(one: Measured) -> list[str]:
    values = {METRIC_WORDS.get(name, name): value for name, value in one.metrics.items()}
    return [
        ", ".join(
            f"{name} {100 * value:.2f}" if math.isfinite(value) else f"{name} -" for name, value in values.items()
        )
    ]


def _table(name: str, heads: list[str], rows: list[list[str]]) -> Html:
    head = tag("thead", tag("tr", [tag("th", text, scope="col") for text in heads]))
    body = [tag("tr", tag("th", first, scope="row"), [tag("td", text) for text in rest]) for first, *rest in rows]
    table = tag("table", head, tag("tbody", body), class_="facts")
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=name)
