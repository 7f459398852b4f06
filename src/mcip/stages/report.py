"""Report: the results of several models as tables, plots, neighbour grids and one page to show around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mcip.core.artefacts import atomic_write, write_json
from mcip.core.errors import ConfigError, McipError
from mcip.core.progress import console
from mcip.reporting import plots, table
from mcip.reporting.comparison import Comparison
from mcip.reporting.grids import Grid, neighbour_grid
from mcip.reporting.mined import Mined, read_mined
from mcip.reporting.page import page
from mcip.reporting.paper import paper_rows, unlike_paper
from mcip.reporting.results import joined, read_results

_TEXTS: dict[str, Callable[[Comparison], str]] = {
    "report.csv": table.as_csv,
    "report.md": table.as_markdown,
    "report.tex": table.as_latex,
}


def report(
    results: list[str],
    out: Path,
    *,
    baseline: str | None = None,
    highlight: str | None = None,
    with_paper: bool = False,
    captions: Path | None = None,
    images: str | None = None,
    queries: int = 6,
    neighbours: int = 8,
) -> Path:
    """Compare the results of `mcip evaluate`: tables, plots, and one self-contained HTML file. No model is loaded.

    Neighbour grids need the images and the embeddings that `mcip evaluate` kept; where they are gone, the page says so.

    Args:
        results: The results files of `mcip evaluate`, in any order of flags; several of one model are joined.
        out: The folder for report.html, report.json, report.md, report.csv, report.tex, and the plots as PNG and SVG:
            teaser (image search against text), tasks (all tasks), captions.
        baseline: The name of the model that the others are compared to; the first one if not given.
        highlight: The model that headline and neighbour grids show; the one with the best mean if not given.
        with_paper: Put the rows of the paper's Table 1 beside the models, marked as the paper's.
        captions: What `mcip mine` wrote, to show how many captions each image got, and examples.
        images: The table that was mined for; looked for among the tables of the tasks if not given.
        queries: Queries per neighbour grid; 0 for no grids.
        neighbours: Images per row of a neighbour grid.

    Returns:
        The path of report.html.

    Raises:
        ArtefactError: A results file or the captions artefact cannot be read.
        ConfigError: The results cannot be compared, or a parameter is out of range.
    """
    if queries < 0 or neighbours < 1:
        raise ConfigError(f"queries is {queries} and neighbours {neighbours}: use at least 0 queries and 1 neighbour.")
    own = joined([read_results(path) for path in results])
    comparison = Comparison.of([*own, *(paper_rows(own) if with_paper else [])], baseline, highlight)
    out = Path(out)
    mined = None if captions is None else read_mined(Path(captions), _tables(comparison, images))
    write_json(out / "report.json", {"rows": table.rows(comparison), "intervals": table.intervals(comparison)})
    for name, render in _TEXTS.items():
        _write(out / name, render(comparison))
    _plot(comparison, mined, out)
    grids, notes = _grids(comparison, queries, neighbours)
    notes += unlike_paper(own) if with_paper else []
    notes += [
        f"{title} was not measured: {why}." for title, why in dict.fromkeys(pair for one in own for pair in one.missing)
    ]
    _write(out / "report.html", page(comparison, grids, notes, mined))
    Console().print(table.as_text(comparison))
    for note in notes:
        console.print(note, markup=False)
    console.print(f"The report is {out / 'report.html'}.", markup=False)
    return out / "report.html"


def _tables(comparison: Comparison, images: str | None) -> list[str]:
    return [images] if images is not None else [one.task.data for one in comparison.tasks.values()]


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
    after = comparison.best_other
    if after is None:
        return [], ["There is no neighbour grid: it takes two models to compare their rankings."]
    measured = [comparison.result(model).measured for model in (comparison.baseline, after)]
    if any(comparison.result(model).paper for model in (comparison.baseline, after)):
        return [], ["There are no neighbour grids: the paper's models come without their rankings."]
    grids, notes = [], []
    for task in (name for name in tasks if all(name in own for own in measured)):
        try:
            grids.append(neighbour_grid(comparison, task, after, queries, neighbours))
        except McipError as error:
            notes.append(f"The neighbour grid of {task} is left out. {error}")
    return grids, notes


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
