"""The table of results: its columns and cells, the rows of report.json, and how a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table as TextTable
from rich.text import Text

from mcip.reporting.comparison import Comparison
from mcip.reporting.words import KIND_WORDS, metric_word, number, signed

# Behind a difference whose interval holds 0.
DOUBT = "≈"
_ENDLESS = 10_000


@dataclass(frozen=True)
class Column:
    """A column of the table: a task, or the mean over all.

    Attributes:
        task: The task's name; None for the mean.
        title: How the column is headed.
        metric: What is measured, for people.
        group: The kind of task, for people.
    """

    task: str | None
    title: str
    metric: str
    group: str


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        value: Percent, to a tenth.
        difference: To the baseline, with its sign, and ≈ behind it where it is in doubt; empty if there is none.
        best: Whether it is the best of its column.
        interval: The 95 % bootstrap interval in percent, as in 83.9–85.6; empty if it is not known.
    """

    value: str
    difference: str
    best: bool
    interval: str = ""


def columns(comparison: Comparison) -> list[Column]:
    """A column per task, and one for the mean where there are several tasks."""
    tasks = [
        Column(name, name, metric_word(measured.headline), KIND_WORDS[measured.task.kind])
        for name, measured in comparison.tasks.items()
    ]
    return [*tasks, Column(None, "mean", "", "")] if len(tasks) > 1 else tasks


def groups(shown: list[Column]) -> list[tuple[str, int]]:
    """The groups of neighbouring columns, each with how many columns it spans."""
    return [(group, len(list(members))) for group, members in groupby(shown, lambda column: column.group)]


def cells(comparison: Comparison, model: str) -> list[Cell]:
    """A model's row."""
    return [_cell(comparison, model, column.task) for column in columns(comparison)]


def _cell(comparison: Comparison, model: str, task: str | None) -> Cell:
    best = comparison.is_best(model, task)
    if task is not None:
        difference = signed(comparison.difference(model, task))
        if comparison.in_doubt(model, task):
            difference += DOUBT
        interval = comparison.interval(model, task)
        ends = "" if interval is None else f"{interval[0]:.1f}–{interval[1]:.1f}"
        return Cell(number(comparison.value(model, task)), difference, best, ends)
    means = [comparison.mean(name) for name in (model, comparison.baseline)]
    return Cell(number(means[0]), "" if None in means else signed(comparison.gain(model, comparison.averaged)), best)


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Per model its name and each task's headline metric in percent, rounded to 0.01; None where it is missing."""
    return [
        {"model": model, **{task: comparison.value(model, task) for task in comparison.tasks}}
        for model in comparison.models
    ]


def intervals(comparison: Comparison) -> list[dict[str, Any]]:
    """Per model its name and each task's 95 % interval in percent, rounded to 0.01; None where it is not known."""
    by_model = []
    for model in comparison.models:
        known = {task: comparison.interval(model, task) for task in comparison.tasks}
        ends = {task: interval and [round(end, 2) for end in interval] for task, interval in known.items()}
        by_model.append({"model": model, **ends})
    return by_model


def caption(comparison: Comparison) -> str:
    """What the numbers are, in one or two lines."""
    parts = ["In percent" if len(comparison.models) == 1 else
             f"In percent; the best in bold; differences to {comparison.baseline} in points"]  # fmt: skip
    if comparison.has_intervals:
        parts.append("ranges are 95 % bootstrap intervals over the queries")
    if any(comparison.in_doubt(model, task) for model in comparison.models for task in comparison.tasks):
        parts.append(f"{DOUBT} marks a difference whose interval holds 0")
    return "; ".join(parts) + "."


def as_text(comparison: Comparison) -> RenderableType:
    """The table for the terminal; where it would be too wide, several, with the columns of a group together."""
    return _Fitting(comparison)


@dataclass(frozen=True)
class _Fitting:
    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from map(self.table, self._parts(console, options))
        yield Text(caption(self.comparison), "italic dim")

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[Column]]:
        def fits(part: list[Column]) -> bool:
            wide = options.update(max_width=_ENDLESS)
            return Measurement.get(console, wide, self.table(part)).maximum <= options.max_width

        units = [list(members) for _, members in groupby(columns(self.comparison), lambda column: column.group)]
        if len(units) > 1 and units[-1][0].task is None:
            units[-2:] = [units[-2] + units[-1]]
        parts: list[list[Column]] = []
        for group in units:
            for more in [group] if fits(group) else [[column] for column in group]:
                if parts and fits(parts[-1] + more):
                    parts[-1] += more
                else:
                    parts.append(more)
        return parts

    def table(self, part: list[Column]) -> TextTable:
        titles = dict.fromkeys(column.group for column in part if column.group)
        table = TextTable(title=", ".join(titles) or None)
        table.add_column("model", no_wrap=True)
        for column in part:
            table.add_column(Text(f"{column.title}\n{column.metric}".strip()), justify="right", no_wrap=True)
        for model in self.comparison.models:
            row = (_terminal_cell(_cell(self.comparison, model, column.task)) for column in part)
            table.add_row(Text(model), *row)
        return table


def _terminal_cell(cell: Cell) -> Text:
    text = Text(cell.value, "bold" if cell.best else "")
    if cell.difference:
        text.append(f" {cell.difference}", "not bold dim")
    if cell.interval:
        text.append(f"\n{cell.interval}", "not bold dim")
    return text
