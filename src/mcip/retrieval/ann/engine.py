"""The vectors of one version of a table, searched by whichever method it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.retrieval.ann import hnsw, lance_disk
from mcip.retrieval.ann.cache import State
from mcip.retrieval.ann.calibrate import QueryKind
from mcip.retrieval.ann.deepening import FIRST, search_in_steps
from mcip.retrieval.ann.exact import Ranked, exact_search, rescore
from mcip.retrieval.ann.select import EXACT_VALUES
from mcip.retrieval.ann.subset import RowSubset
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.fusion import Background
from mcip.retrieval.score_calibration import ScoreCalibration
from mcip.retrieval.table import IndexTable

# A filter that leaves fewer values (rows x dimension) than this is followed by exact search.
_SELECTIVE: Final = EXACT_VALUES
# How much wider a search among a graph's vectors may become to make up for those that a filter leaves out.
_WIDEST: Final = 4096
# Candidates that are rescored beyond k: quantized vectors put neighbours of nearly equal similarity into another order.
_SPARE: Final = 4


@dataclass(frozen=True)
class Engine:
    """The vectors of one version of a table, opened for searching. A vector is named by its slot.

    Attributes:
        table: The version.
        folder: Where its derived files lie.
        state: What they hold.
        row_ids: The `_rowid` of each slot. Where an image was replaced, a slot that is not alive has the same.
        alive: The slots whose rows are in the table; None if all are.
        vectors: The slots' vectors, memory-mapped; None where they are only in the table.
        graph: The graph, if there is one.
        background: How similarities are distributed over the index.
        calibration: What unrelated queries score.
    """

    table: IndexTable
    folder: Path
    state: State
    row_ids: NDArray[np.int64]
    alive: RowSubset | None
    vectors: NDArray[np.float16] | None
    graph: hnsw.Graph | None
    background: Background
    calibration: ScoreCalibration = field(default_factory=lambda: ScoreCalibration({}))

    def __len__(self) -> int:
        return len(self.row_ids) if self.alive is None else len(self.alive.slots)

    @property
    def scans(self) -> bool:
        """Whether every search is exact, over vectors in memory."""
        return self.graph is None and self.vectors is not None

    def search(
        self,
        query: NDArray[np.float32],
        kind: QueryKind,
        k: int,
        subset: RowSubset | None = None,
        exact: bool = False,
    ) -> Ranked:
        """Search one query. The first of the results are the same for every k.

        Args:
            query: Shape (D,).
            kind: Of the query; each kind is searched as it was calibrated.
            k: Vectors to return.
            subset: What a filter leaves; everything if not given.
            exact: Search exactly.

        Returns:
            Products (m,), float32, in descending order, and the slots, ascending where products are equal. m is k, or
            fewer where no more are left to be found.
        """
        setting = self.state.settings.get(kind)
        return self.search_at(query, k, 0 if exact or setting is None else setting.width, subset)

    def search_at(self, query: NDArray[np.float32], k: int, width: int, subset: RowSubset | None = None) -> Ranked:
        """Search one query at a width, see `calibrate.Setting`; 0 is exact search."""
        selective = subset is not None and len(subset.slots) * self.state.dim <= _SELECTIVE
        if self.vectors is None:
            return self._on_disk(query, k, width, subset, selective)
        subset = subset or self.alive
        if self.graph is None or width == 0 or selective:
            return self._exactly(query, k, subset)
        count = len(self.row_ids) if subset is None else len(subset.slots)
        return search_in_steps(lambda depth: self._in_graph(query, depth, width, subset), k, count)

    def search_many(
        self, queries: NDArray[np.float32], kind: QueryKind, k: int, subset: RowSubset | None = None,
        exact: bool = False,
    ) -> list[Ranked]:  # fmt: skip
        """Search several queries (Q, D), together where that is quicker."""
        if self.vectors is not None and self.graph is None and len(queries) > 1:
            subset = subset or self.alive
            slots = None if subset is None else subset.slots
            return list(zip(*exact_search(self.vectors, queries, k, slots), strict=True))
        return [self.search(query, kind, k, subset, exact) for query in queries]

    def take(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors in these slots, float32 (n, D)."""
        vectors = self.table.vectors(self.row_ids[slots]) if self.vectors is None else self.vectors[slots]
        return vectors.astype(np.float32)

    def matching(self, where: str) -> RowSubset:
        """What a compiled filter leaves; see `mcip.retrieval.filters.compile_filter`."""
        row_ids = self.table.read([], where)["_rowid"].to_numpy().astype(np.int64)
        mask = np.isin(self.row_ids, row_ids)
        return RowSubset.of(mask if self.alive is None else mask & self.alive.mask, where)

    def subset_of(self, where: str, columns: list[str]) -> RowSubset:
        """What a filter over these columns leaves; see `mcip.retrieval.filters`."""
        return self.matching(compile_filter(where, self.table.schema, columns))

    def _exactly(self, query: NDArray[np.float32], k: int, subset: RowSubset | None) -> Ranked:
        assert self.vectors is not None
        scores, slots = exact_search(self.vectors, query[None], k, None if subset is None else subset.slots)
        return scores[0], slots[0]

    def _in_graph(self, query: NDArray[np.float32], k: int, width: int, subset: RowSubset | None) -> Ranked:
        assert self.graph is not None
        assert self.vectors is not None
        if subset is None:
            return rescore(self.vectors, query, self.graph.search(query, k + _SPARE, width), k)
        share = max(len(subset.slots) / len(self.row_ids), 1e-9)
        candidates = int((k + _SPARE) / share)
        while candidates <= _WIDEST:
            slots = self.graph.search(query, candidates, min(int(width / share), _WIDEST))
            slots = slots[subset.mask[slots]]
            if len(slots) >= k:
                return rescore(self.vectors, query, slots, k)
            candidates *= 2
        return self._exactly(query, k, subset)

    def _on_disk(
        self, query: NDArray[np.float32], k: int, width: int, subset: RowSubset | None, selective: bool
    ) -> Ranked:
        if subset is not None and selective:
            scores, places = rescore(self.take(subset.slots), query, np.arange(len(subset.slots)), k)
            return scores, subset.slots[places]
        where = None if subset is None else subset.where
        count, most = len(self) if subset is None else len(subset.slots), lance_disk.partitions(len(self))
        # The fewer rows a filter leaves, the more partitions the nearest of them are spread over.
        width = math.ceil(width * math.sqrt(len(self) / max(count, 1)))

        def search(depth: int) -> Ranked:
            # More results lie in more partitions, and all of them in all.
            visited = most if depth >= count else min(most, width * max(1, depth // FIRST))
            scores, row_ids = lance_disk.disk_search(self.table, query, depth, visited if width else 0, where)
            return scores, np.searchsorted(self.row_ids, row_ids)

        return search_in_steps(search, k, count) if width else search(k)
