"""The table of results: rows for JSON, CSV, Markdown, LaTeX and the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.table import Table as TextTable
from rich.text import Text

from mcip.reporting.comparison import KIND_WORDS, METRIC_WORDS, Comparison, number, signed

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
        difference: To the baseline, with its sign; empty if there is none.
        best: Whether it is the best of its column.
    """

    value: str
    difference: str
    best: bool


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
        return Cell(number(comparison.value(model, task)), signed(comparison.difference(model, task)), best)
    means = [comparison.mean(one) for one in (model, comparison.baseline)]
    return Cell(number(means[0]), "" if None in means else signed(comparison.gain(model)), best)


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Per model its name and each task's headline metric in percent, rounded to 0.01; None where it is missing."""
    return [
        {"model": model, **{task: comparison.value(model, task) for task in comparison.tasks}}
        for model in comparison.models
    ]


def as_csv(comparison: Comparison) -> str:
    """The rows as CSV, a missing value being an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", *comparison.tasks], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(comparison))
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
    return "\n".join([*lines, "", caption(comparison), ""])


def as_latex(comparison: Comparison) -> str:
    """The table as a LaTeX tabular with the rules of booktabs: the best in bold, differences to the baseline small."""
    shown = columns(comparison)

    def text(cell: Cell) -> str:
        value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value.replace("-", "--")
        return f"{value} {{\\scriptsize ${cell.difference}$}}" if cell.difference else value

    def line(parts: list[str]) -> str:
        return " & ".join(parts) + r" \\"

    body = [line([_latex(model), *(text(cell) for cell in cells(comparison, model))]) for model in comparison.models]
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


def _rules(shown: list[Column]) -> Iterator[str]:
    start = 2
    for group, span in groups(shown):
        if group:
            yield rf"\cmidrule(lr){{{start}-{start + span - 1}}}"
        start += span


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def as_text(comparison: Comparison) -> TextTable:
    """The table for the terminal."""
    shown = columns(comparison)
    table = TextTable("model", caption=caption(comparison))
    for column in shown:
        table.add_column(Text(f"{column.title}\n{column.metric}".strip()), justify="right")
    for model in comparison.models:
        row = []
        for cell in cells(comparison, model):
            text = Text(cell.value, "bold" if cell.best else "")
            row.append(text.append(f" {cell.difference}", "not bold dim") if cell.difference else text)
        table.add_row(Text(model), *row)
    return table


def caption(comparison: Comparison) -> str:
    """What the numbers are, in one line."""
    if len(comparison.models) == 1:
        return "In percent."
    return f"In percent; the best in bold; differences to {comparison.baseline} in points."
