"""The ranking of an index by a query of one or several parts."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.vectors import unit_vectors
from mcip.retrieval.ann.deepening import search_in_steps
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import Ranked, ranking
from mcip.retrieval.ann.subset import RowSubset
from mcip.retrieval.fused import FusedQuery
from mcip.retrieval.fusion import Part

# A query, as it is searched: its only part; a sum, which is linear, as its vector and the constant that is added to
# the product with it; or another function of the products with several vectors.
Linear: TypeAlias = tuple[NDArray[np.float32], float]
Query: TypeAlias = Part | Linear | FusedQuery

# Candidates of each part of a fused query, for each of its results.
_CANDIDATES: Final = 16


def rank(engine: Engine, query: Query, count: int, subset: RowSubset | None = None, exact: bool = False) -> Ranked:
    """The best scores and slots of a query; the first are the same for every count.

    Args:
        engine: The index.
        query: As it is searched.
        count: Images.
        subset: What a filter leaves.
        exact: Compare with every image.
    """
    if isinstance(query, Part):
        return engine.search(query.vector, query.kind, count, subset, exact)
    if isinstance(query, FusedQuery):
        return _fused(engine, query, count, subset, exact)
    vector, constant = query
    length = max(float(np.linalg.norm(vector)), 1e-12)
    scores, slots = engine.search(vector / np.float32(length), "mixed", count, subset, exact)
    return scores * np.float32(length) + np.float32(constant), slots


def score_vectors(query: Query, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores (n,) of vectors (n, D) by the same rule as `rank`."""
    if isinstance(query, Part):
        return vectors @ query.vector
    if isinstance(query, FusedQuery):
        return query.scores(vectors)
    return vectors @ query[0] + np.float32(query[1])


def _fused(engine: Engine, query: FusedQuery, count: int, subset: RowSubset | None, exact: bool) -> Ranked:
    """Score the union of what each part finds, or every image."""
    within = subset or engine.alive
    every = np.arange(len(engine.row_ids)) if within is None else within.slots

    def search(depth: int) -> Ranked:
        slots = every
        if not exact and depth * _CANDIDATES < len(every):
            found = [
                engine.search(direction, kind, depth * _CANDIDATES, subset)
                for direction, kind in zip(unit_vectors(query.directions), query.kinds, strict=True)
            ]
            slots = np.unique(np.concatenate([numbers for _, numbers in found]))
        scores = query.scores(engine.take(slots))
        order = ranking(scores, slots)[:depth]
        return scores[order], slots[order]

    return search(count) if exact else search_in_steps(search, count, len(every))
