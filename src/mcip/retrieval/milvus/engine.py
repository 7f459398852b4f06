"""An index whose vectors Milvus searches. Whatever else an answer needs comes from the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError, EngineError
from mcip.core.progress import console
from mcip.retrieval.ann.cache import BACKGROUND, State, derived_folder
from mcip.retrieval.ann.calibrate import QueryKind, Sample, Setting, recall_at, sample
from mcip.retrieval.ann.deepening import FIRST, search_in_steps
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import Ranked, ranking
from mcip.retrieval.ann.lance_disk import disk_search
from mcip.retrieval.ann.subset import RowSubset
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.fusion import Background
from mcip.retrieval.milvus.collection import MOST, Collection, Held
from mcip.retrieval.milvus.filters import milvus_filter
from mcip.retrieval.table import IndexTable

# The widths of search that calibration tries: HNSW's `ef`.
WIDTHS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Filtered(RowSubset):
    """What a filter leaves: an expression for Milvus, and rows that are looked up in the table only if they are needed.

    Attributes:
        expression: Of Milvus.
    """

    expression: str

    def __init__(self, engine: MilvusEngine, where: str, expression: str) -> None:
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "expression", expression)
        object.__setattr__(self, "_engine", engine)

    @cached_property
    def slots(self) -> NDArray[np.int64]:
        """The slots of the rows, ascending."""
        engine: MilvusEngine = self.__dict__["_engine"]
        row_ids = engine.table.read([], self.where)["_rowid"].to_numpy().astype(np.int64)
        return np.flatnonzero(np.isin(engine.row_ids, row_ids))

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Of all slots, which are left."""
        mask = np.zeros(len(self.__dict__["_engine"].row_ids), bool)
        mask[self.slots] = True
        return mask

    @cached_property
    def count(self) -> int:
        """The rows that Milvus holds of these."""
        engine: MilvusEngine = self.__dict__["_engine"]
        return engine.collection.count(self.expression)


@dataclass(frozen=True)
class MilvusEngine(Engine):
    """The vectors of one version of a table, searched by Milvus. A slot is the place of a row by its `_rowid`.

    Attributes:
        collection: The index's collection.
    """

    collection: Collection = field(kw_only=True)

    def search_at(self, query: NDArray[np.float32], k: int, width: int, subset: RowSubset | None = None) -> Ranked:
        """Search one query at a width, HNSW's `ef`; 0 is exact search, which reads all vectors of the table."""
        if width == 0:
            scores, row_ids = disk_search(self.table, query, k, 0, None if subset is None else subset.where)
            return self._present(scores, row_ids)
        count = subset.count if isinstance(subset, Filtered) else len(self)
        if count == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        if min(k, count) > MOST:
            raise ConfigError(f"Milvus returns at most {MOST:,} images of a query: ask for fewer, or narrow it down.")

        # Of what a graph finds a filter leaves a share.
        widened = min(width * len(self) // count, max(width, WIDTHS[-1]))

        def search(depth: int) -> Ranked:
            return self._search(query[None], depth, max(widened, 2 * depth if depth > FIRST else 0), subset)[0]

        return search_in_steps(search, k, count)

    def search_many(
        self, queries: NDArray[np.float32], kind: QueryKind, k: int, subset: RowSubset | None = None,
        exact: bool = False,
    ) -> list[Ranked]:  # fmt: skip
        """Search several queries (Q, D), in one call where few results are requested of each."""
        setting = self.state.settings.get(kind)
        if exact or setting is None or k > FIRST or subset is not None:
            return [self.search(query, kind, k, subset, exact) for query in queries]
        ranked = self._search(queries, FIRST, setting.width, None)
        return [(scores[:k], slots[:k]) for scores, slots in ranked]

    def subset_of(self, where: str, columns: list[str]) -> RowSubset:
        """What a filter leaves."""
        schema = self.table.schema
        expression = milvus_filter(where, schema, columns, self.collection.columns)
        return Filtered(self, compile_filter(where, schema, columns), expression)

    def _search(self, queries: NDArray[np.float32], k: int, width: int, subset: RowSubset | None) -> list[Ranked]:
        expression = subset.expression if isinstance(subset, Filtered) else ""
        return [self._present(*ranked) for ranked in self.collection.search(queries, k, width, expression)]

    def _present(self, scores: NDArray[np.float32], row_ids: NDArray[np.int64]) -> Ranked:
        """The slots of rows, without those that this version of the table has not."""
        slots = np.minimum(np.searchsorted(self.row_ids, row_ids), max(len(self.row_ids) - 1, 0))
        present = self.row_ids[slots] == row_ids if len(self.row_ids) else np.zeros(len(row_ids), bool)
        return scores[present], slots[present]


def report_difference(table: IndexTable, collection: Collection) -> Held:
    """Say on stderr in which way what Milvus holds is not this version of the table, and return what it holds.

    Raises:
        EngineError: Milvus holds no version of the table completely.
    """
    held = collection.held
    if held is None or not held.version:
        raise EngineError(f"{collection} does not hold all of {table.uri} yet: run `mcip index` again, and it resumes.")
    if held.version != table.version or held.loading:
        state = f" (the load of version {held.loading} is running or was interrupted)" if held.loading else ""
        console.print(
            f"{collection} holds version {held.version} of {table.uri} with {held.rows:,} images{state}; the table is "
            f"at version {table.version} with {len(table):,}. What is new is found once `mcip index` has loaded it.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return held


def open_milvus(table: IndexTable, collection: Collection, state: State, row_ids: NDArray[np.int64]) -> MilvusEngine:
    """Open what Milvus holds of a table, of whose rows these are the `_rowid`s, ascending."""
    collection.load()
    folder = derived_folder(table.uri)
    background = Background.load(folder / BACKGROUND)
    return MilvusEngine(table, folder, state, row_ids, None, None, None, background, collection=collection)


def calibrate_milvus(
    engine: MilvusEngine, queries: dict[QueryKind, NDArray[np.float32]], sources: NDArray[np.int64], target: float
) -> dict[QueryKind, Setting]:
    """Choose a width for each kind of query: the narrowest that reaches the target, else the widest.

    Args:
        engine: What is searched.
        queries: Of each kind.
        sources: The slots that the image queries were derived from.
        target: Recall@10.
    """
    every = np.concatenate(list(queries.values()))
    derived = np.concatenate([sources, np.full(len(every) - len(sources), -1)])
    # By reading the table once for all of them.
    exact = sample(lambda some, k: _exact(engine, some, k), every, derived)
    # All that was written before is found by the searches that follow.
    engine.collection.count(now=True)
    settings: dict[QueryKind, Setting] = {}
    start = 0
    for kind, some in queries.items():
        part = slice(start, start := start + len(some))
        settings[kind] = _setting(engine, Sample(some, exact.tenth[part], exact.sources[part]), target)
    return settings


def _setting(engine: MilvusEngine, expected: Sample, target: float) -> Setting:
    for width in WIDTHS:
        measured = recall_at(engine.search_at, width, expected)
        if measured.reaches(target):
            break
    return Setting(width, measured.recall, measured.milliseconds, len(expected.queries), 0.0)


def _exact(engine: MilvusEngine, queries: NDArray[np.float32], k: int) -> Ranked:
    """The products and slots of the k nearest rows of the table to each query (Q, D)."""
    best = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
    for row_ids, vectors in engine.table.vector_batches():
        slots = np.searchsorted(engine.row_ids, row_ids)
        for at, line in enumerate(queries @ vectors.astype(np.float32).T):
            places = np.argpartition(-line, min(k, len(line)) - 1)[:k]
            scores, numbers = np.append(best[at][0], line[places]), np.append(best[at][1], slots[places])
            order = ranking(scores, numbers)[:k]
            best[at] = scores[order], numbers[order]
    return np.stack([scores for scores, _ in best]), np.stack([numbers for _, numbers in best])
