"""Calibration: the narrowest approximate search that reaches a recall, for each kind of query."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.vectors import unit_vectors
from mcip.retrieval.ann.exact import Ranked

Kind: TypeAlias = Literal["image", "text"]
# An image query is another image like those of the table, a text query lies away from all of them, and a mixed one,
# which `mcip.retrieval.fusion` makes of several parts, somewhere else again.
QueryKind: TypeAlias = Literal["image", "text", "mixed"]
K: Final = 10
# Texts of a sample, which have to be embedded, and images. The more there are, the less wide a search has to be to
# reach its target for certain.
QUERIES: Final = 200
IMAGES: Final = 400
# Cosines that differ by less count as equal: the same image may be in the table several times.
_EQUAL: Final = 1e-5
# How far a sample query is moved from its vector, as a share of the difference of two others.
_MOVED: Final = np.float32(1 / 3)

# Searches one query (D,) for k neighbours at a width: their products, exact and in descending order, and their numbers.
SearchAt: TypeAlias = Callable[[NDArray[np.float32], int, int], Ranked]


@dataclass(frozen=True)
class Setting:
    """How a kind of query is searched, and what was measured of it.

    Attributes:
        width: The width of the search: HNSW's `ef`, or the partitions that an index on disk visits. 0 is exact search.
        recall: Recall@10 against exact search.
        milliseconds: Median time of a query on one core.
        queries: Queries that were measured.
        exact_milliseconds: Median time of exact search for the same queries.
    """

    width: int
    recall: float
    milliseconds: float
    queries: int
    exact_milliseconds: float


@dataclass(frozen=True)
class Sample:
    """Queries with their exact results.

    Attributes:
        queries: Shape (Q, D).
        tenth: Shape (Q,): the product of the tenth neighbour.
        sources: Shape (Q,): the number of the vector that a query was derived from, which does not count as a result;
            -1 for none.
    """

    queries: NDArray[np.float32]
    tenth: NDArray[np.float32]
    sources: NDArray[np.int64]


def image_queries(vectors: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """Queries like images that are not in the table: stored vectors, each moved along the difference of two others.

    They lie about as far from their neighbours as other images do, and are about as hard to search. Moved in random
    directions they would be too easy: those lie at right angles to all that sets images apart, and at a vector itself
    the graph leads to all of its neighbours.

    Args:
        vectors: Shape (Q, D), of unit length: a sample of the table.
        seed: Of the choice of the others.

    Returns:
        float32 (Q, D) of unit length.
    """
    vectors, rng = vectors.astype(np.float32), np.random.default_rng(seed)
    one, other = (vectors[rng.permutation(len(vectors))] for _ in range(2))
    return unit_vectors(vectors + _MOVED * (one - other))


def sample(
    exact: Callable[[NDArray[np.float32], int], Ranked],
    queries: NDArray[np.float32],
    sources: NDArray[np.int64] | None = None,
) -> Sample:
    """Search queries exactly, to measure approximate search by.

    Args:
        exact: Exact search of queries (Q, D) for k neighbours.
        queries: Shape (Q, D).
        sources: See `Sample`; none if not given.
    """
    sources = np.full(len(queries), -1, np.int64) if sources is None else sources
    scores, numbers = exact(queries, K + 1)
    tenth = np.empty(len(queries), np.float32)
    for at in range(len(queries)):
        others = scores[at][numbers[at] != sources[at]]
        tenth[at] = others[min(K, len(others)) - 1] if len(others) else np.inf
    return Sample(queries, tenth, sources)


class Measured(NamedTuple):
    """Recall@10 of a search at one width, its standard error, and the median time of a query in milliseconds."""

    recall: float
    error: float
    milliseconds: float

    def reaches(self, target: float) -> bool:
        """Whether queries other than those of the sample may be expected to find this share of their neighbours."""
        return self.recall - self.error >= target


def recall_at(search: SearchAt, width: int, expected: Sample) -> Measured:
    """Measure a search at one width."""
    recalls, seconds = [], []
    for query, tenth, source in zip(expected.queries, expected.tenth, expected.sources, strict=True):
        start = time.perf_counter()
        scores, numbers = search(query, K + (source >= 0), width)
        seconds.append(time.perf_counter() - start)
        right = (scores >= tenth - _EQUAL) & (numbers != source)
        recalls.append(min(int(right.sum()), K) / K)
    error = float(np.std(recalls)) / np.sqrt(len(recalls))
    return Measured(float(np.mean(recalls)), float(error), 1e3 * float(np.median(seconds)))


def calibrate(
    search: SearchAt, widths: Sequence[int], expected: Sample, target: float, exact_milliseconds: float
) -> Setting:
    """The least width that reaches the target by its standard error; exact search where none does or is quicker."""
    queries = len(expected.queries)
    for width in widths:
        measured = recall_at(search, width, expected)
        if measured.milliseconds >= exact_milliseconds:
            break
        if measured.reaches(target):
            return Setting(width, measured.recall, measured.milliseconds, queries, exact_milliseconds)
    return Setting(0, 1.0, exact_milliseconds, queries, exact_milliseconds)
