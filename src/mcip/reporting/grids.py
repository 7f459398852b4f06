"""Neighbour grids: queries whose ranking differs most between two models, with the nearest images of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.data import Table
from mcip.errors import ArtefactError
from mcip.evaluation.measure import labelled_rows, task_table
from mcip.evaluation.tasks import Task
from mcip.metrics import average_precisions
from mcip.reporting.comparison import Comparison
from mcip.reporting.pictures import stored_embeddings, thumbnail
from mcip.topk import topk

Outcome: TypeAlias = Literal["hit", "miss", "itself"]


@dataclass(frozen=True)
class Neighbour:
    """One image of a ranking.

    Attributes:
        picture: A data URI; None where the image cannot be read.
        label: Its class.
        outcome: "hit" if it is of the query's class, "miss" if not, "itself" if it is the query.
        similarity: Cosine.
    """

    picture: str | None
    label: str
    outcome: Outcome
    similarity: float


@dataclass(frozen=True)
class Ranking:
    """A query's nearest images by one model, and the average precision of its whole ranking, in percent."""

    model: str
    average_precision: float
    neighbours: list[Neighbour]

    @property
    def hits(self) -> int:
        """How many of the images shown are hits."""
        return sum(neighbour.outcome == "hit" for neighbour in self.neighbours)


@dataclass(frozen=True)
class Query:
    """A query with its ranking by each model."""

    picture: str | None
    id: str
    label: str
    before: Ranking
    after: Ranking


@dataclass(frozen=True)
class Grid:
    """The queries of a task that differ most between two models, and how all of its queries moved.

    Attributes:
        task: The task's name.
        before: The baseline's name.
        after: The other model's name.
        queries: The most different first, of as many classes as possible.
        better: How many queries have a higher average precision with the other model.
        worse: How many have a lower one.
        total: How many queries have one.
    """

    task: str
    before: str
    after: str
    queries: list[Query]
    better: int
    worse: int
    total: int


@dataclass(frozen=True)
class _Space:
    """A model's vectors of the labelled images, and the average precision of each as a query."""

    model: str
    ids: list[str]
    vectors: NDArray[np.float32]
    labels: NDArray[np.str_]
    precisions: NDArray[np.float64]


def neighbour_grid(comparison: Comparison, task: str, after: str, queries: int, neighbours: int) -> Grid:
    """Compare the rankings of the baseline and of the model `after` at an image-to-image task.

    Raises:
        McipError: The images, or the embeddings of one of the models, are not there any more.
    """
    protocol = comparison.tasks[task].task
    table = task_table(protocol, protocol.split)
    spaces = [_space(comparison, model, protocol, table) for model in (comparison.baseline, after)]
    if spaces[0].ids != spaces[1].ids:
        raise ArtefactError("The two models were not given the same images. Evaluate them again.")
    change = spaces[1].precisions - spaces[0].precisions
    chosen = most_different(change, spaces[0].labels, queries)
    rankings = [_rankings(space, chosen, neighbours, protocol.exclude_self, table) for space in spaces]
    row_of = {image: row for row, image in enumerate(table.ids)}
    found = [
        Query(thumbnail(table, row_of[spaces[0].ids[row]]), spaces[0].ids[row], str(spaces[0].labels[row]), *both)
        for row, *both in zip(chosen.tolist(), *rankings, strict=True)
    ]
    total = int((~np.isnan(change)).sum())
    return Grid(task, comparison.baseline, after, found, int((change > 0).sum()), int((change < 0).sum()), total)


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


def _space(comparison: Comparison, model: str, task: Task, table: Table) -> _Space:
    embeddings = stored_embeddings(comparison.result(model), task, table)
    rows, labels = labelled_rows(task, table, embeddings)
    vectors = embeddings.take(rows)
    precisions = average_precisions(vectors, vectors, labels, labels, task.exclude_self)
    return _Space(model, [embeddings.ids[row] for row in rows], vectors, labels, precisions)


def _rankings(
    space: _Space, chosen: NDArray[np.int64], neighbours: int, exclude_self: bool, table: Table
) -> list[Ranking]:
    row_of = {image: row for row, image in enumerate(table.ids)}

    def neighbour(query: int, item: int, similarity: float) -> Neighbour:
        same: Outcome = "hit" if space.labels[item] == space.labels[query] else "miss"
        picture = thumbnail(table, row_of[space.ids[item]])
        return Neighbour(picture, str(space.labels[item]), "itself" if item == query else same, similarity)

    similarities, items = topk(space.vectors[chosen], space.vectors, neighbours + exclude_self)
    found = []
    for query, scores, nearest in zip(chosen.tolist(), similarities.tolist(), items.tolist(), strict=True):
        ranked = [pair for pair in zip(nearest, scores, strict=True) if not (exclude_self and pair[0] == query)]
        shown = [neighbour(query, item, score) for item, score in ranked[:neighbours]]
        found.append(Ranking(space.model, round(100 * float(space.precisions[query]), 1), shown))
    return found
