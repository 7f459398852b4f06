"""The files of a report, and the report as an object."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from mcip.core.errors import ArtefactError, McipError
from mcip.core.files import atomic_write, write_json
from mcip.reporting import formats, plots, table
from mcip.reporting.caveats import all_caveats
from mcip.reporting.comparison import Comparison
from mcip.reporting.diagnostics import joint_spaces
from mcip.reporting.grids import Grid, neighbour_grid
from mcip.reporting.improvement import Improvement
from mcip.reporting.mined import Mined
from mcip.reporting.page import page, table_html

_FORMATS: dict[str, Callable[[Comparison], str]] = {
    "report.csv": formats.as_csv,
    "report.md": formats.as_markdown,
    "report.tex": formats.as_latex,
}


@dataclass(frozen=True)
class Report(os.PathLike[str]):
    """A report that was written: the path of its page, which shows the table of results in a terminal or notebook.

    Attributes:
        path: report.html.
        comparison: The results side by side.
        notes: Sentences about what was left out, and about benchmarks that were measured otherwise than in print.
    """

    path: Path
    comparison: Comparison
    notes: list[str]

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __rich__(self) -> RenderableType:
        lines = [*self.notes, f"The report is {self.path}."]
        return Group(table.as_text(self.comparison), *map(Text, lines))

    def _repr_html_(self) -> str:
        lines = [*self.notes, f"The report is {self.path}."]
        return table_html(self.comparison) + "".join(f"<p>{escape(line)}</p>" for line in lines)


def write_report(
    comparison: Comparison,
    out: Path,
    mined: Mined | None,
    queries: int,
    neighbours: int,
    improvement: Improvement | None = None,
) -> Report:
    """Write all files of a report.

    Args:
        comparison: The results.
        out: The folder.
        mined: The mined captions to show, if any.
        queries: Queries per neighbour grid; 0 for no grids.
        neighbours: Images per row of a neighbour grid.
        improvement: How a better model was found, where `mcip improve` writes the report.

    Raises:
        ArtefactError: `out` cannot be made or written to.
    """
    caveats = all_caveats(comparison.results)
    grids, notes = _grids(comparison, queries, neighbours)
    texts = {name: render(comparison) for name, render in _FORMATS.items()}
    texts["report.html"] = page(comparison, grids, notes, mined, improvement)
    content = {
        "rows": table.rows(comparison),
        "intervals": table.intervals(comparison),
        "joint_spaces": joint_spaces(comparison.results),
        "notes": caveats,
    }
    try:
        write_json(out / "report.json", content)
        for name, text in texts.items():
            with atomic_write(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        _plot(comparison, mined, out)
    except OSError as error:
        raise ArtefactError(
            f"The report cannot be written to {out} ({error.strerror}): name another folder."
        ) from error
    return Report(out / "report.html", comparison, caveats + notes)


def _plot(comparison: Comparison, mined: Mined | None, out: Path) -> None:
    figures = {
        "teaser": plots.teaser(comparison),
        "tasks": plots.dots(comparison),
        "captions": None if mined is None else plots.caption_histogram(mined.images_by_count),
    }
    for name, figure in figures.items():
        if figure is not None:
            plots.save(figure, out, name)


def _grids(comparison: Comparison, queries: int, neighbours: int) -> tuple[list[Grid], list[str]]:
    """A grid per task whose queries find images, and a sentence for each that had to be left out."""
    tasks = [*comparison.of_kind("i2i"), *comparison.of_kind("t2i")]
    if not tasks or queries == 0:
        return [], []
    after = comparison.headline_model
    if after is None:
        return [], ["There is no neighbour grid: it takes two models to compare their rankings."]
    pair = [comparison.result(model) for model in (comparison.baseline, after)]
    if any(result.paper for result in pair):
        return [], ["There are no neighbour grids: the paper's models come without their rankings."]
    grids, notes = [], []
    for task in (name for name in tasks if all(name in result.measured for result in pair)):
        try:
            grids.append(neighbour_grid(comparison, task, after, queries, neighbours))
        except McipError as error:
            notes.append(f"The neighbour grid of {task} is left out. {error}")
    return grids, notes
