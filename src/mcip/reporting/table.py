"""The table of results: rows for JSON, CSV, Markdown, LaTeX and the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table as TextTable
from rich.text import Text

from mcip.reporting.comparison import KIND_WORDS, METRIC_WORDS, Comparison, number, signed

# Behind a difference whose interval holds 0.
DOUBT = "≈"
_ENDLESS = 10_000
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip


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
    found = [
        Column(name, name, METRIC_WORDS.get(one.headline, one.headline), KIND_WORDS[one.task.kind])
        for name, one in comparison.tasks.items()
    ]
    return [*found, Column(None, "mean", "", "")] if len(found) > 1 else found


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
        around = "" if interval is None else f"{interval[0]:.1f}–{interval[1]:.1f}"
        return Cell(number(comparison.value(model, task)), difference, best, around)
    means = [comparison.mean(one) for one in (model, comparison.baseline)]
    return Cell(number(means[0]), "" if None in means else signed(comparison.gain(model, comparison.averaged)), best)


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Per model its name and each task's headline metric in percent, rounded to 0.01; None where it is missing."""
    return [
        {"model": model, **{task: comparison.value(model, task) for task in comparison.tasks}}
        for model in comparison.models
    ]


def intervals(comparison: Comparison) -> list[dict[str, Any]]:
    """Per model its name and each task's 95 % interval in percent, rounded to 0.01; None where it is not known."""
    found = []
    for model in comparison.models:
        known = {task: comparison.interval(model, task) for task in comparison.tasks}
        ends = {task: one and [round(end, 2) for end in one] for task, one in known.items()}
        found.append({"model": model, **ends})
    return found


def as_csv(comparison: Comparison) -> str:
    """The rows as CSV, then the ends of the intervals as "TASK low" and "TASK high"; what is missing is empty."""
    text = io.StringIO()
    known = [task for task in comparison.tasks if any(one[task] for one in intervals(comparison))]
    ends = [f"{task} {end}" for task in known for end in ("low", "high")]
    writer = csv.DictWriter(text, ["model", *comparison.tasks, *ends], lineterminator="\n")
    writer.writeheader()
    for row, interval in zip(rows(comparison), intervals(comparison), strict=True):
        low_high = [end for task in known for end in interval[task] or (None, None)]
        writer.writerow(row | dict(zip(ends, low_high, strict=True)))
    return text.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """The table as Markdown: the best in bold, differences to the baseline in brackets."""
    shown = columns(comparison)

    def line(parts: list[str]) -> str:
        return "| " + " | ".join(part.replace("|", "\\|").replace("\n", " ") for part in parts) + " |"

    def text(cell: Cell) -> str:
        value = f"**{cell.value}**" if cell.best else cell.value
        return f"{value} ({cell.difference})" if cell.difference else value

    titles = [column.title + (f" ({column.metric})" if column.metric else "") for column in shown]
    lines = [line(["model", *titles]), "|".join(["", "---", *["---:"] * len(shown), ""])]
    lines += [line([model, *(text(cell) for cell in cells(comparison, model))]) for model in comparison.models]
    lines += ["", caption(comparison), ""]
    around = {model: [cell.interval for cell in cells(comparison, model)] for model in comparison.models}
    around = {model: own for model, own in around.items() if any(own)}
    if around:
        kept = [place for place in range(len(titles)) if any(own[place] for own in around.values())]
        lines += [
            line(["95 % interval", *(titles[place] for place in kept)]),
            "|".join(["", *["---"] * (len(kept) + 1), ""]),
        ]
        lines += [line([model, *(own[place] for place in kept)]) for model, own in around.items()]
        lines.append("")
    return "\n".join(lines)


def as_latex(comparison: Comparison) -> str:
    """The table as a LaTeX tabular with the rules of booktabs: the best in bold, differences to the baseline small."""
    shown = columns(comparison)

    def text(cell: Cell) -> str:
        value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value.replace("-", "--")
        difference = cell.difference.replace(DOUBT, r"\approx")
        return f"{value} {{\\scriptsize ${difference}$}}" if difference else value

    def line(parts: list[str]) -> str:
        return " & ".join(parts) + r" \\"

    body: list[str] = []
    for model in comparison.models:
        if body and comparison.result(model).paper and r"\midrule" not in body:
            body.append(r"\midrule")
        found = cells(comparison, model)
        body.append(line([_latex(model), *(text(cell) for cell in found)]))
        if any(cell.interval for cell in found):
            body.append(line(["", *(_latex_interval(cell.interval) for cell in found)]))
    return "\n".join(
        [
            f"% {caption(comparison)}",
            rf"\begin{{tabular}}{{l{'r' * len(shown)}}}",
            r"\toprule",
            line(["", *(rf"\multicolumn{{{span}}}{{c}}{{{_latex(group)}}}" for group, span in groups(shown))]),
            " ".join(_rules(shown)),
            line(["model", *(_latex(f"{column.title} {column.metric}".strip()) for column in shown)]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_interval(interval: str) -> str:
    ends = interval.replace("–", "--")
    return rf"{{\scriptsize {ends}}}" if interval else ""


def _rules(shown: list[Column]) -> Iterator[str]:
    start = 2
    for group, span in groups(shown):
        if group:
            yield rf"\cmidrule(lr){{{start}-{start + span - 1}}}"
        start += span


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def as_text(comparison: Comparison) -> RenderableType:
    """The table for the terminal; where it would be too wide, several, with the columns of a group together."""
    return _Fitting(comparison)


@dataclass(frozen=True)
class _Fitting:
    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(part: list[Column]) -> bool:
            return Measurement.get(console, options.update(max_width=_ENDLESS), self.table(part)).maximum <= room

        room = options.max_width
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
        yield from map(self.table, parts)
        yield Text(caption(self.comparison), "italic dim")

    def table(self, part: list[Column]) -> TextTable:
        titles = dict.fromkeys(column.group for column in part if column.group)
        table = TextTable(title=", ".join(titles) or None)
        table.add_column("model", no_wrap=True)
        for column in part:
            table.add_column(Text(f"{column.title}\n{column.metric}".strip()), justify="right", no_wrap=True)
        for model in self.comparison.models:
            found = (_terminal_cell(_cell(self.comparison, model, column.task)) for column in part)
            table.add_row(Text(model), *found)
        return table


def _terminal_cell(cell: Cell) -> Text:
    text = Text(cell.value, "bold" if cell.best else "")
    if cell.difference:
        text.append(f" {cell.difference}", "not bold dim")
    if cell.interval:
        text.append(f"\n{cell.interval}", "not bold dim")
    return text


def caption(comparison: Comparison) -> str:
    """What the numbers are, in one or two lines."""
    parts = ["In percent" if len(comparison.models) == 1 else
             f"In percent; the best in bold; differences to {comparison.baseline} in points"]  # fmt: skip
    pairs = [(model, task) for model in comparison.models for task in comparison.tasks]
    if any(comparison.interval(*pair) for pair in pairs):
        parts.append("ranges are 95 % bootstrap intervals over the queries")
    if any(comparison.in_doubt(*pair) for pair in pairs):
        parts.append(f"{DOUBT} marks a difference whose interval holds 0")
    notes = [f" {result.model}: {result.note}" for result in comparison.results if result.note]
    return "; ".join(parts) + "." + "".join(notes)
