"""Report: the results of several models as tables, plots, neighbour grids and one page to show around."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.processes import check_one_process
from mcip.stages.inputs import CaptionsInput, DataInput

if TYPE_CHECKING:
    from mcip.reporting.report import Report

    class Evaluation(Protocol):
        """What `mcip.evaluate` returned."""

        @property
        def paths(self) -> Sequence[Path]:
            """The results files."""

    ResultsInput: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Evaluation
else:
    ResultsInput = list[str]


def report(
    results: ResultsInput,
    out: Path,
    *,
    baseline: str | None = None,
    highlight: str | None = None,
    with_paper: bool = False,
    captions: CaptionsInput | None = None,
    images: DataInput | None = None,
    queries: int = 6,
    neighbours: int = 8,
) -> Report:
    """Compare the results of `mcip evaluate`: tables, plots, and one self-contained HTML file. No model is loaded.

    Neighbour grids need the images and the embeddings that `mcip evaluate` kept; where they are gone, the page says so.

    Args:
        results: The results files of `mcip evaluate`, or in Python what it returned; several of one model are joined.
        out: The folder for report.html, report.json, report.md, report.csv, report.tex, and the plots as PNG and SVG:
            teaser (image search against text), tasks (all tasks), captions.
        baseline: The name of the model that the others are compared to; the first one if not given.
        highlight: The model that headline and neighbour grids show; if not given, the one with the best mean over the
            tasks that all models have, of equal ones the first.
        with_paper: Put the rows of the paper's Table 1 beside the models, marked as the paper's.
        captions: What `mcip mine` wrote, to show how many captions each image got, and examples.
        images: The table that was mined for; looked for among the tables of the tasks if not given.
        queries: Queries per neighbour grid; 0 for no grids.
        neighbours: Images per row of a neighbour grid.

    Returns:
        The report: the path of report.html, and the comparison that it shows.

    Raises:
        ArtefactError: A results file or the captions artefact cannot be read.
        ConfigError: The results cannot be compared, or a parameter is out of range.

    Example:
        >>> import mcip
        >>> page = mcip.report(["runs/results/base.json", "runs/results/mcip.json"], "runs/report")  # doctest: +SKIP
        >>> page.comparison.headline_model  # doctest: +SKIP
        'mcip'
    """
    check_one_process()
    from mcip.reporting.comparison import Comparison
    from mcip.reporting.mined import read_mined
    from mcip.reporting.paper import paper_rows
    from mcip.reporting.report import write_report
    from mcip.reporting.results import joined, read_results

    if queries < 0 or neighbours < 1:
        raise ConfigError(f"queries is {queries} and neighbours {neighbours}: use at least 0 queries and 1 neighbour.")
    measured = joined([read_results(path) for path in _files(results)])
    comparison = Comparison.of([*measured, *(paper_rows(measured) if with_paper else [])], baseline, highlight)
    candidates = dict.fromkeys(task.task.data for task in comparison.tasks.values())
    mined = None if captions is None else read_mined(captions, [*candidates] if images is None else [images])
    return write_report(comparison, Path(out), mined, queries, neighbours)


def _files(results: Any) -> list[Path]:
    """The results files.

    Raises:
        ArtefactError: One of them is no file.
    """
    paths = getattr(results, "paths", [results] if isinstance(results, str | os.PathLike) else results)
    for path in paths:
        # pathlib's own test raises for names that are too long.
        if not os.path.isfile(path):  # noqa: PTH113
            problem = "is a folder" if os.path.isdir(path) else "is not there"  # noqa: PTH112
            raise ArtefactError(f"{os.fspath(path)!r} {problem}: give the JSON files that `mcip evaluate` wrote.")
    return [Path(path) for path in paths]
