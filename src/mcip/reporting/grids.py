"""Neighbour grids: queries whose ranking differs most between two models, with the nearest images of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.data import Table
from mcip.evaluation.task_data import Sources
from mcip.reporting.comparison import METRIC_WORDS, Comparison
from mcip.reporting.rankings import Asked, Outcome, Space, space_of
from mcip.reporting.results import Measured
from mcip.reporting.thumbnails import row_thumbnail

# What a metric is called for one query.
_OF_ONE_QUERY = {"map": "AP", "map@1000": "AP@1k"}


@dataclass(frozen=True)
class Neighbour:
    """One image of a ranking.

    Attributes:
        picture: A data URI; None where the image cannot be read.
        label: Its class, or its id where it has none.
        outcome: "hit" if it is relevant, "miss" if not, "itself" if it is the query, "ignored" if it counts as neither.
        similarity: Cosine.
    """

    picture: str | None
    label: str
    outcome: Outcome
    similarity: float


@dataclass(frozen=True)
class Ranking:
    """A query's nearest images by one model, and what the whole ranking is worth by the task's metric, in percent."""

    model: str
    score: float
    neighbours: list[Neighbour]

    @property
    def hits(self) -> int:
        """How many of the images shown are hits."""
        return sum(neighbour.outcome == "hit" for neighbour in self.neighbours)


@dataclass(frozen=True)
class Query:
    """A query with its ranking by each model.

    Attributes:
        picture: A data URI; None where the image cannot be read, and for a text.
        is_text: Whether it is a text.
        text: The text, or the class of the image.
        id: Of the image; empty for a text.
        before: By the baseline.
        after: By the other model.
    """

    picture: str | None
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
        queries: The most different first, of as many classes as possible.
        better: How many queries have a higher value with the other model.
        worse: How many have a lower one.
        total: How many queries have one.
    """

    task: str
    metric: str
    before: str
    after: str
    queries: list[Query]
    better: int
    worse: int
    total: int


def neighbour_grid(comparison: Comparison, task: str, after: str, queries: int, neighbours: int) -> Grid:
    """Compare the rankings of the baseline and of the model `after` at a task whose queries find images.

    Raises:
        McipError: The images, or the embeddings or the queries' values of one of the models, are not there any more.
    """
    names = (comparison.baseline, after)
    both = [comparison.result(name).measured[task] for name in names]
    asked = both[0].task
    data = Sources().data(asked)
    spaces = [space_of(comparison.result(name), asked, data) for name in names]
    values = [_values(one, space) for one, space in zip(both, spaces, strict=True)]
    if values[0].shape != values[1].shape:
        raise ArtefactError("The two models were not given the same images. Evaluate them again.")
    change = values[1] - values[0]
    chosen = most_different(change, np.array([one.text for one in spaces[0].asked]), queries)

    def ranking(query: int, number: int) -> Ranking:
        found = [
            Neighbour(row_thumbnail(one.table, one.row), _label(one.table, one.row), one.outcome, one.similarity)
            for one in spaces[number].nearest(query, neighbours, asked)
        ]
        return Ranking(names[number], round(100 * float(values[number][query]), 1), found)

    found = [_query(spaces[0].asked[row], [ranking(row, number) for number in (0, 1)]) for row in chosen.tolist()]
    headline = both[0].headline
    metric = _OF_ONE_QUERY.get(headline, METRIC_WORDS.get(headline, headline))
    total = int((~np.isnan(change)).sum())
    return Grid(task, metric, *names, found, int((change > 0).sum()), int((change < 0).sum()), total)


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
    seen: dict[str, int] = {}
    turn = []
    for row in order:
        turn.append(seen.get(labels[row], 0))
        seen[labels[row]] = turn[-1] + 1
    chosen = order[np.argsort(turn, kind="stable")[:count]]
    return chosen[np.argsort(-size[chosen], kind="stable")]


def _values(measured: Measured, space: Space) -> NDArray[np.float64]:
    values = measured.values().astype(np.float64)
    if len(values) != len(space.asked):
        raise ArtefactError(
            f"There are values of {len(values)} queries, but {len(space.asked)} queries. Evaluate the models again."
        )
    return values


def _query(asked: Asked, rankings: Sequence[Ranking]) -> Query:
    if asked.table is None:
        return Query(None, True, asked.text, "", *rankings)
    return Query(row_thumbnail(asked.table, asked.row), False, asked.text, asked.table.ids[asked.row], *rankings)


def _label(table: Table, row: int) -> str:
    return table.labels[row] or table.ids[row]
