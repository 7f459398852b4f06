"""Near-duplicates and bursts among results, collapsed: the best image of each group stands for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.core.vectors import unit_vectors
from mcip.retrieval.ann.exact import Ranked, products

# How many of the best images are looked at first, and by how much that grows until there are enough groups.
_WINDOW: Final = 512
_GROWTH: Final = 4
# Equal images have a cosine of 1 but for rounding.
_ROUNDING: Final = 1e-6
# What a matrix product in single precision may add to or take from a cosine.
_ERROR: Final = 1e-5


@dataclass(frozen=True)
class RankedGroup:
    """Results that one of them stands for.

    Attributes:
        rank: The place of the best one in the ranking, from 0.
        others: The places of the others, ascending.
    """

    rank: int
    others: NDArray[np.int64]


def collapsed(
    ranking: Callable[[int], Ranked],
    take: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    threshold: float,
    count: int,
) -> tuple[Ranked, list[RankedGroup]]:
    """Walk down a ranking: an image within the threshold of the first of a group joins it, others begin a new one.

    Groups do not depend on how many are requested. The others of a group are those among the best 512, or among the
    best 2,048, 8,192, ... where the group begins further down; what is near its first image beyond that is left out.

    Args:
        ranking: Returns this many of the best scores and slots, or all that there are; the first are always the same.
        take: Returns the vectors in some slots, float32 (n, D).
        threshold: The least cosine of an image to the one that stands for it.
        count: Groups to find.

    Returns:
        The ranking as far as it was looked at, and the first groups, at most `count`.

    Raises:
        ConfigError: The threshold is no cosine.
    """
    if not -1 < threshold <= 1:
        raise ConfigError(f"collapse is {threshold:g}: it must be a cosine, above -1 and at most 1.")
    window = _WINDOW
    while True:
        ranked = ranking(window)
        slots = ranked[1]
        groups = _groups(unit_vectors(take(slots)), threshold - _ROUNDING, count)
        if len(groups) == count or len(slots) < window:
            return ranked, groups
        window *= _GROWTH


def _groups(unit: NDArray[np.float32], threshold: float, count: int) -> list[RankedGroup]:
    free = np.ones(len(unit), bool)
    groups: list[RankedGroup] = []
    window = _WINDOW
    for rank in range(len(unit)):
        if len(groups) == count:
            break
        if not free[rank]:
            continue
        while rank >= window:
            window *= _GROWTH
        near = free & _within(unit, unit[rank], threshold)
        near[: rank + 1] = False
        groups.append(RankedGroup(rank, np.flatnonzero(near[:window])))
        free &= ~near
    return groups


def _within(unit: NDArray[np.float32], query: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which vectors are within a threshold of one, whichever others are beside them."""
    rough = unit @ query
    within: NDArray[np.bool_] = rough >= threshold
    unsure = np.flatnonzero(np.abs(rough - threshold) <= _ERROR)
    within[unsure] = products(unit[unsure], query) >= threshold
    return within
