"""Neighbour grids: queries whose ranking differs most between two models, with the nearest images of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.data import Table
from mcip.evaluation.task_data import Sources
from mcip.reporting.comparison import Comparison
from mcip.reporting.rankings import Outcome, Query, Space, space_of
from mcip.reporting.results import Measured
from mcip.reporting.thumbnails import row_thumbnail
from mcip.reporting.words import metric_word

# What a metric is called for one query.
_OF_ONE_QUERY = {"map": "AP", "map@1000": "AP@1k"}


@dataclass(frozen=True)
class Neighbour:
    """One image of a ranking.

    Attributes:
        image: A data URI; None where the image cannot be read.
        label: Its class, or its id where it has none.
        outcome: "hit" if it is relevant, "miss" if not, "itself" if it is the query, "ignored" if it counts as neither.
        similarity: Cosine.
    """

    image: str | None
    label: str
    outcome: Outcome
    similarity: float


@dataclass(frozen=True)
class Ranking:
    """A query's nearest images by one model, and the value of the task's metric for the whole ranking, in percent."""

    model: str
    score: float
    neighbours: list[Neighbour]

    @property
    def hits(self) -> int:
        """How many of the images shown are hits."""
        return sum(neighbour.outcome == "hit" for neighbour in self.neighbours)


@dataclass(frozen=True)
class Change:
    """A query with its ranking by each of the two models.

    Attributes:
        image: A data URI; None where the image cannot be read, and for a text.
        is_text: Whether it is a text.
        text: The text, or the class of the image.
        id: Of the image; empty for a text.
        before: By the baseline.
        after: By the other model.
    """

    image: str | None
    is_text: bool
    text: str
    id: str
    before: Ranking
    after: Ranking


@dataclass(frozen=True)
class Grid:
    """The queries of a task that differ most between two models, and how all of its queries moved.

    Attributes:
        task: The task's name.
        metric: What a query is measured by, for people.
        before: The baseline's name.
        after: The other model's name.
        changes: The most different queries first, of as many classes as possible.
        better: How many queries have a higher value with the other model.
        worse: How many have a lower one.
        total: How many queries have one.
    """

    task: str
    metric: str
    before: str
    after: str
    changes: list[Change]
    better: int
    worse: int
    total: int


def neighbour_grid(comparison: Comparison, task: str, after: str, queries: int, neighbours: int) -> Grid:
    """Compare the rankings of the baseline and of the model `after` at a task whose queries find images.

    Raises:
        McipError: The images, or the embeddings or the queries' values of one of the models, are not there any more.
    """
    names = (comparison.baseline, after)
    measured = [comparison.result(name).measured[task] for name in names]
    protocol = measured[0].task
    data = Sources().data(protocol)
    spaces = [space_of(comparison.result(name), protocol, data) for name in names]
    values = [_values(*pair) for pair in zip(measured, spaces, strict=True)]
    if values[0].shape != values[1].shape:
        raise ArtefactError("The two models were not given the same images. Evaluate them again.")
    change = values[1] - values[0]
    rows = most_different(change, np.array([query.text for query in spaces[0].queries]), queries)

    def ranking(row: int, number: int) -> Ranking:
        nearest = [
            Neighbour(
                row_thumbnail(image.table, image.row), _label(image.table, image.row), image.outcome, image.similarity
            )
            for image in spaces[number].nearest(row, neighbours, protocol)
        ]
        return Ranking(names[number], round(100 * float(values[number][row]), 1), nearest)

    changes = [_change(spaces[0].queries[row], [ranking(row, number) for number in (0, 1)]) for row in rows.tolist()]
    headline = measured[0].headline
    metric = _OF_ONE_QUERY.get(headline, metric_word(headline))
    total = int((~np.isnan(change)).sum())
    return Grid(task, metric, *names, changes, int((change > 0).sum()), int((change < 0).sum()), total)


def most_different(change: NDArray[np.float64], labels: NDArray[np.str_], count: int) -> NDArray[np.int64]:
    """The queries with the largest change in either direction; a second one of a class only when classes run out.

    Args:
        change: Shape (Q,); NaN and 0 are never chosen.
        labels: The class of each query.
        count: How many to choose.

    Returns:
        At most `count` rows, the largest change first.
    """
    size = np.nan_to_num(np.abs(change))
    order = np.argsort(-size, kind="stable")[: np.count_nonzero(size)]
    counts: dict[str, int] = {}
    rounds = []
    for row in order:
        rounds.append(counts.get(labels[row], 0))
        counts[labels[row]] = rounds[-1] + 1
    rows = order[np.argsort(rounds, kind="stable")[:count]]
    return rows[np.argsort(-size[rows], kind="stable")]


def _values(measured: Measured, space: Space) -> NDArray[np.float64]:
    values = measured.values().astype(np.float64)
    if len(values) != len(space.queries):
        raise ArtefactError(
            f"There are values of {len(values)} queries, but {len(space.queries)} queries. Evaluate the models again."
        )
    return values


def _change(query: Query, rankings: Sequence[Ranking]) -> Change:
    if query.table is None:
        return Change(None, True, query.text, "", *rankings)
    return Change(row_thumbnail(query.table, query.row), False, query.text, query.table.ids[query.row], *rankings)


def _label(table: Table, row: int) -> str:
    return table.labels[row] or table.ids[row]
