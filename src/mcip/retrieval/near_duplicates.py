"""Near-duplicates: groups of images around one that represents them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.core.vectors import unit_vectors
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import Ranked, exact_search, products

# Equal images have a cosine of 1 but for rounding.
_ROUNDING: Final = 1e-6
# What half precision may take from the length of a vector, and so from a cosine.
_HALF: Final = 2e-3
# Neighbours of each image that are looked at first; all within the threshold are for an image that has more.
_NEIGHBOURS: Final = 16
_BLOCK: Final = 1024
# Above this many products (rows squared x dimension) exact search takes more than a quarter of an hour on two cores;
# the graph is used instead.
_EXACT_WORK: Final = 5e13


@dataclass(frozen=True)
class SlotGroup:
    """Images that can stand for each other, by their slots.

    Attributes:
        representative: The image to keep.
        members: The others, each with its cosine to the representative, in descending order of it; 1 for exact copies.
        exact: Whether they are copies of the same file. Otherwise they are within the threshold of the representative.
    """

    representative: int
    members: list[tuple[int, float]]
    exact: bool


def duplicate_groups(
    engine: Engine, threshold: float, advance: Callable[[int], None] = lambda _: None
) -> list[SlotGroup]:
    """Group exact copies, then the images whose cosine to a representative is at least a threshold.

    Of exact copies the first one represents the others, and only it takes part in what follows. Then images become
    representatives in descending order of their pixels, unless they are within the threshold of one already; each
    other image joins the representative that is most similar to it. So whatever is left out looks like something that
    is kept, and unlike things are never joined by a chain of others between them.

    Every image is compared with its nearest neighbours: exactly, in blocks, up to some hundred thousand images, by the
    approximate index past that. Memory holds a block of products and the pairs within the threshold.

    Args:
        engine: The index's vectors.
        threshold: The least cosine of an image to its representative.
        advance: Is called with the number of images that were compared.

    Returns:
        Groups of two images or more: exact copies first, then in descending order of the least cosine.

    Raises:
        ConfigError: The threshold is no cosine.
    """
    if not -1 < threshold <= 1:
        raise ConfigError(f"threshold is {threshold}: it must be a cosine, above -1 and at most 1.")
    slots = np.arange(len(engine.row_ids)) if engine.alive is None else engine.alive.slots
    rows = engine.table.read(["hash", "width", "height"]).sort_by("_rowid")
    rows = rows.take(np.searchsorted(rows["_rowid"].to_numpy().astype(np.int64), engine.row_ids[slots]))
    copies: dict[str, list[int]] = defaultdict(list)
    for slot, content in zip(slots.tolist(), rows["hash"].to_pylist(), strict=True):
        copies[content or f"slot {slot}"].append(slot)
    groups = [SlotGroup(same[0], [(slot, 1.0) for slot in same[1:]], True) for same in copies.values() if len(same) > 1]
    advance(len(slots) - len(copies))
    distinct = np.isin(slots, [same[0] for same in copies.values()])
    sides = (rows[name].fill_null(0).to_numpy().astype(np.int64)[distinct] for name in ("width", "height"))
    order = np.argsort(-np.multiply(*sides), kind="stable")
    groups += _around_representatives(_Neighbours(engine, threshold, slots[distinct], advance), slots[distinct][order])
    return sorted(groups, key=lambda group: (not group.exact, -group.members[-1][1], group.representative))


def _around_representatives(neighbours: _Neighbours, order: NDArray[np.int64]) -> Iterator[SlotGroup]:
    """Make the first image in the order that is not yet near a representative the next one, until none is left."""
    nearest: dict[int, tuple[float, int]] = {}
    members: dict[int, list[tuple[int, float]]] = {}
    for slot in order.tolist():
        if slot in nearest:
            continue
        members[slot] = []
        for other, cosine in neighbours(slot):
            if other not in members and cosine > nearest.get(other, (-np.inf, 0))[0]:
                nearest[other] = cosine, slot
    for slot, (cosine, representative) in nearest.items():
        members[representative].append((slot, cosine))
    for representative, others in members.items():
        if others:
            yield SlotGroup(representative, sorted(others, key=lambda member: (-member[1], member[0])), False)


class _Neighbours:
    """All images within a threshold of an image, with their cosines; compared when it is created."""

    def __init__(
        self, engine: Engine, threshold: float, slots: NDArray[np.int64], advance: Callable[[int], None]
    ) -> None:
        self.engine = engine
        self.mask = np.zeros(len(engine.row_ids), bool)
        self.mask[slots] = True
        self.subset = None if self.mask.all() else slots
        self.least = threshold - _ROUNDING
        # Of products whose vectors have the lengths that half precision has left them.
        self.rough = threshold - _HALF
        self.exact = engine.vectors is not None and float(len(slots)) ** 2 * engine.state.dim <= _EXACT_WORK
        self.count = len(slots) if self.exact else len(engine)
        self.lists: dict[int, list[tuple[int, float]]] = {}
        self.incomplete: set[int] = set()
        k = min(_NEIGHBOURS + 1, self.count)
        for start in range(0, len(slots), _BLOCK):
            block = slots[start : start + _BLOCK]
            for slot, query, (scores, near) in zip(block.tolist(), *self._nearest(block, k), strict=True):
                if self._is_cut_off(scores, k):
                    self.incomplete.add(slot)
                elif np.count_nonzero(scores >= self.rough) > 1:
                    self.lists[slot] = self._within(query, near[scores >= self.rough])
            advance(len(block))

    def __call__(self, slot: int) -> list[tuple[int, float]]:
        if slot not in self.incomplete:
            return self.lists.get(slot, [])
        k = _NEIGHBOURS + 1
        while True:
            k = min(8 * k, self.count)
            (query,), ((scores, near),) = self._nearest(np.array([slot]), k)
            if not self._is_cut_off(scores, k):
                return self._within(query, near)

    def _is_cut_off(self, scores: NDArray[np.float32], k: int) -> bool:
        """Whether there may be more within the threshold than the k that were found."""
        return len(scores) == k < self.count and bool(scores[-1] >= self.rough)

    def _within(self, query: NDArray[np.float32], near: NDArray[np.int64]) -> list[tuple[int, float]]:
        near = near[self.mask[near]]
        cosines = np.minimum(products(self._unit(near), query), 1)
        kept = cosines >= self.least
        return list(zip(near[kept].tolist(), cosines[kept].tolist(), strict=True))

    def _unit(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        return unit_vectors(self.engine.take(slots))

    def _nearest(self, slots: NDArray[np.int64], k: int) -> tuple[NDArray[np.float32], list[Ranked]]:
        """The vectors in some slots, and the k nearest of each."""
        queries = self._unit(slots)
        if not self.exact:
            return queries, [self.engine.search(query, "image", k) for query in queries]
        assert self.engine.vectors is not None
        return queries, list(zip(*exact_search(self.engine.vectors, queries, k, self.subset), strict=True))
