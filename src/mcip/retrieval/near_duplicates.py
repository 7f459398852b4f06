"""Near-duplicates: groups of pictures that are joined by pairs above a threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import exact_search

_PAIR = np.dtype([("one", np.int64), ("other", np.int64), ("cosine", np.float32)])
_NO_PAIRS = np.empty(0, _PAIR)
# Equal pictures have a cosine of 1 but for rounding.
_ROUNDING = 1e-6
# What half precision may take from the length of a vector, and so from a cosine.
_HALF = 2e-3
_BLOCK = 1024
# Above this many products (rows squared x dimension) exact search takes more than a quarter of an hour on two cores;
# the graph is used instead.
_EXACT_WORK = 5e13


@dataclass(frozen=True)
class Group:
    """Pictures that are near-duplicates of each other, directly or by way of others of the group.

    Attributes:
        slots: The pictures, rising.
        pairs: The pairs above the threshold: two slots, the lower one first, and their cosine.
    """

    slots: list[int]
    pairs: list[tuple[int, int, float]]


def duplicate_groups(
    engine: Engine, threshold: float, neighbours: int = 16, advance: Callable[[int], None] = lambda _: None
) -> list[Group]:
    """Group the pictures of an index whose cosine is at least a threshold.

    Every picture is compared with its nearest neighbours: exactly, in blocks, up to some hundred thousand pictures, by
    the approximate index past that. Memory holds a block of products and the pairs that were found.

    Args:
        engine: The index's vectors.
        threshold: The least cosine of a pair.
        neighbours: Of each picture, how many of its nearest are looked at. A group of more pictures than that is still
            found whole, as long as they hang together by these pairs.
        advance: Is told how many pictures were compared.

    Returns:
        Groups of two pictures or more, the largest first.

    Raises:
        ConfigError: The threshold is no cosine, or `neighbours` is below 1.
    """
    if not -1 < threshold <= 1 or neighbours < 1:
        raise ConfigError(f"threshold is {threshold} and neighbours {neighbours}: a cosine, and at least 1.")
    slots = np.arange(len(engine.row_ids)) if engine.alive is None else engine.alive.slots
    exact = engine.vectors is not None and float(len(slots)) ** 2 * engine.state.dim <= _EXACT_WORK
    parts = [_NO_PAIRS]
    for start in range(0, len(slots), _BLOCK):
        block = slots[start : start + _BLOCK]
        scores, found = _nearest(engine, block, neighbours + 1, exact)
        at, near = np.nonzero(scores >= threshold - _HALF)
        pairs = _pairs(engine, block[at], found[at, near])
        parts.append(pairs[pairs["cosine"] >= threshold - _ROUNDING])
        advance(len(block))
    # Most pairs were found from both of their sides.
    joined = np.concatenate(parts)
    _, first = np.unique(joined[["one", "other"]], return_index=True)
    return _groups(joined[first], len(engine.row_ids))


def _pairs(engine: Engine, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.void]:
    """Pairs of different slots with their cosines."""
    apart = ones != others
    pairs = np.empty(int(apart.sum()), _PAIR)
    pairs["one"], pairs["other"] = np.sort([ones[apart], others[apart]], axis=0)
    products = _unit(engine, pairs["one"]) * _unit(engine, pairs["other"])
    pairs["cosine"] = np.minimum(products.sum(1), 1)
    return pairs


def _unit(engine: Engine, slots: NDArray[np.int64]) -> NDArray[np.float32]:
    vectors = engine.take(slots)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _nearest(
    engine: Engine, slots: NDArray[np.int64], k: int, exact: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    queries = _unit(engine, slots)
    if exact:
        assert engine.vectors is not None
        return exact_search(engine.vectors, queries, k, None if engine.alive is None else engine.alive.slots)
    scores_of = np.full((len(slots), k), -np.inf, np.float32)
    found_of = np.zeros((len(slots), k), np.int64)
    for at, query in enumerate(queries):
        scores_1, found_1 = engine.search(query, "image", k)
        scores_of[at, : len(scores_1)], found_of[at, : len(found_1)] = scores_1, found_1
    return scores_of, found_of


def _find(parents: NDArray[np.int64], one: int) -> int:
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = int(parents[one])
    return one


def _groups(pairs: NDArray[np.void], slots: int) -> list[Group]:
    """The connected components of pairs, by union-find."""
    parents = np.arange(slots)
    for one, other in zip(pairs["one"].tolist(), pairs["other"].tolist(), strict=True):
        low, high = sorted((_find(parents, one), _find(parents, other)))
        parents[high] = low
    members: dict[int, set[int]] = defaultdict(set)
    joined: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
    for one, other, cosine in pairs.tolist():
        root = _find(parents, one)
        members[root] |= {one, other}
        joined[root].append((one, other, cosine))
    found = [Group(sorted(slots), joined[root]) for root, slots in members.items()]
    return sorted(found, key=lambda group: (-len(group.slots), group.slots[0]))
