"""Recall of approximate search, measured for each kind of query against exact search on the same vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["image", "text"]
# An image query is another picture like those of the table, a text query lies away from all of them, and a mixed one,
# which `mcip.retrieval.fusion` makes of several parts, somewhere else again.
Asked: TypeAlias = Literal["image", "text", "mixed"]
K: Final = 10
QUERIES: Final = 200
# Cosines that differ by less count as equal: the same picture may be in the table several times.
_EQUAL: Final = 1e-5

# Searches one query (D,) for k neighbours at a width: their products, exact and falling, and their numbers.
SearchAt: TypeAlias = Callable[[NDArray[np.float32], int, int], tuple[NDArray[np.float32], NDArray[np.int64]]]


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
        least: Shape (Q,): the product of the tenth neighbour.
        own: The number of the vector that a query was made of and that does not count as found; -1 for none.
    """

    queries: NDArray[np.float32]
    least: NDArray[np.float32]
    own: NDArray[np.int64]


def image_queries(vectors: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """Queries like pictures that are not in the table: stored vectors, each moved in a random direction.

    Args:
        vectors: Shape (Q, D), of unit length.
        seed: Of the directions.

    Returns:
        float32 (Q, D) of unit length; the cosine to the vector that each was made of is about 0.9.
    """
    noise = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    moved = vectors.astype(np.float32) + noise
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def sample(
    exact: Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]],
    queries: NDArray[np.float32],
    own: NDArray[np.int64] | None = None,
) -> Sample:
    """Search queries exactly, to measure approximate search by.

    Args:
        exact: Exact search of queries (Q, D) for k neighbours.
        queries: Shape (Q, D).
        own: See `Sample`; none of the vectors if not given.
    """
    numbers = np.full(len(queries), -1, np.int64) if own is None else own
    scores, found = exact(queries, K + 1)
    least = np.empty(len(queries), np.float32)
    for at in range(len(queries)):
        others = scores[at][found[at] != numbers[at]]
        least[at] = others[min(K, len(others)) - 1] if len(others) else np.inf
    return Sample(queries, least, numbers)


def measure(search: SearchAt, width: int, wanted: Sample) -> tuple[float, float]:
    """Recall@10 of a search at one width, and the median time of a query in milliseconds."""
    recalls, seconds = [], []
    for query, least, own in zip(wanted.queries, wanted.least, wanted.own, strict=True):
        start = time.perf_counter()
        scores, found = search(query, K + (own >= 0), width)
        seconds.append(time.perf_counter() - start)
        right = (scores >= least - _EQUAL) & (found != own)
        recalls.append(min(int(right.sum()), K) / K)
    return float(np.mean(recalls)), 1e3 * float(np.median(seconds))


def tune(search: SearchAt, widths: Sequence[int], wanted: Sample, target: float, exact_milliseconds: float) -> Setting:
    """The least width that reaches the target; exact search where none does, or none that is quicker than it."""
    for width in widths:
        recall, milliseconds = measure(search, width, wanted)
        if milliseconds >= exact_milliseconds:
            break
        if recall >= target:
            return Setting(width, recall, milliseconds, len(wanted.queries), exact_milliseconds)
    return Setting(0, 1.0, exact_milliseconds, len(wanted.queries), exact_milliseconds)
