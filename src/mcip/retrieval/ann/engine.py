"""Searching the vectors of one version of a table, by whichever way it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.artefacts import atomic_write
from mcip.core.errors import ConfigError
from mcip.retrieval.ann import hnsw, lance_disk
from mcip.retrieval.ann.cache import (
    State,
    bring_up_to_date,
    graph_file,
    locked,
    map_rows,
    map_vectors,
    read_state,
    row_marks,
    write_state,
)
from mcip.retrieval.ann.calibrate import QUERIES, Asked, Sample, SearchAt, Setting, image_queries, sample, tune
from mcip.retrieval.ann.exact import exact_search, rescore
from mcip.retrieval.ann.select import EXACT_VALUES, Ann
from mcip.retrieval.fusion import Background, Part
from mcip.retrieval.table import IndexTable

TEXTS: Final = "texts.npy"
BACKGROUND: Final = "similarities.npz"
# A filter that leaves fewer values (rows x dimension) than this is followed by exact search.
_SELECTIVE: Final = EXACT_VALUES
# Rows that background statistics are taken of, and the growth after which settings are measured again.
_SAMPLED: Final = 1000
_GROWN: Final = 1.2
# How much wider a search among a graph's vectors may become to make up for those that a filter leaves out.
_WIDEST: Final = 4096
_SPARE: Final = 6

# The embeddings of sample texts, (T, D) of unit length; asked for when settings have to be measured.
Texts = Callable[[], NDArray[np.float32]]
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Chosen:
    """Some of the slots: what a filter leaves, or those whose rows have not been deleted.

    Attributes:
        mask: Of all slots, which they are.
        slots: Their numbers, rising.
        where: The filter, an SQL condition, if it is one.
    """

    mask: NDArray[np.bool_]
    slots: NDArray[np.int64]
    where: str | None = None

    @classmethod
    def of(cls, mask: NDArray[np.bool_], where: str | None = None) -> Chosen:
        """The slots of a mask."""
        return cls(mask, np.flatnonzero(mask), where)


@dataclass(frozen=True)
class Engine:
    """The vectors of one version of a table, opened for searching. Vectors are told by their slots.

    Attributes:
        table: The version.
        state: What its derived files hold.
        row_ids: The `_rowid` of each slot.
        alive: The slots whose rows are in the table; None if all are.
        vectors: The slots' vectors, memory-mapped; None where they are only in the table.
        graph: The graph, if there is one.
        background: What similarities look like by chance.
    """

    table: IndexTable
    state: State
    row_ids: NDArray[np.int64]
    alive: Chosen | None
    vectors: NDArray[np.float16] | None
    graph: hnsw.Graph | None
    background: Background

    def __len__(self) -> int:
        return len(self.row_ids) if self.alive is None else len(self.alive.slots)

    def search(
        self,
        query: NDArray[np.float32],
        kind: Asked,
        k: int,
        among: Chosen | None = None,
        exact: bool = False,
    ) -> Found:
        """Search one query.

        Args:
            query: Shape (D,).
            kind: How it is searched depends on what it is like.
            k: Vectors to find.
            among: What a filter leaves; everything if not given.
            exact: Search exactly.

        Returns:
            Products (m,), float32, falling, and the slots, m of them: k, or as many as there are.
        """
        setting = self.state.settings.get(kind)
        width = 0 if exact or setting is None else setting.width
        if self.vectors is None:
            return self._on_disk(query, k, width, among)
        selective = among is not None and len(among.slots) * self.state.dim <= _SELECTIVE
        among = among or self.alive
        if self.graph is None or width == 0 or selective:
            scores, found = exact_search(self.vectors, query[None], k, None if among is None else among.slots)
            return scores[0], found[0]
        return self._in_graph(query, k, width, among)

    def search_many(
        self, queries: NDArray[np.float32], kind: Asked, k: int, among: Chosen | None = None, exact: bool = False
    ) -> list[Found]:
        """Search several queries (Q, D), together where that is quicker."""
        if self.graph is None and self.vectors is not None and len(queries) > 1:
            among = among or self.alive
            slots = None if among is None else among.slots
            return list(zip(*exact_search(self.vectors, queries, k, slots), strict=True))
        return [self.search(query, kind, k, among, exact) for query in queries]

    def take(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors in these slots, float32 (n, D)."""
        found = self.table.vectors(self.row_ids[slots]) if self.vectors is None else self.vectors[slots]
        return found.astype(np.float32)

    def matching(self, where: str) -> Chosen:
        """What a condition leaves that `mcip.retrieval.filters` printed."""
        rows = self.table.read([], where)["_rowid"].to_numpy().astype(np.int64)
        found = np.isin(self.row_ids, rows)
        return Chosen.of(found if self.alive is None else found & self.alive.mask, where)

    def _in_graph(self, query: NDArray[np.float32], k: int, width: int, among: Chosen | None) -> Found:
        assert self.graph is not None
        assert self.vectors is not None
        if among is None:
            # bfloat16 puts neighbours of nearly the same similarity into the wrong order.
            return rescore(self.vectors, query, self.graph.search(query, k + _SPARE, width), k)
        share = max(len(among.slots) / len(self.row_ids), 1e-9)
        asked = int((k + _SPARE) / share)
        while asked <= _WIDEST:
            slots = self.graph.search(query, asked, min(int(width / share), _WIDEST))
            slots = slots[among.mask[slots]]
            if len(slots) >= k:
                return rescore(self.vectors, query, slots, k)
            asked *= 2
        scores, slots = exact_search(self.vectors, query[None], k, among.slots)
        return scores[0], slots[0]

    def _on_disk(self, query: NDArray[np.float32], k: int, width: int, among: Chosen | None) -> Found:
        if among is not None and len(among.slots) * self.state.dim <= _SELECTIVE:
            scores, found = rescore(self.take(among.slots), query, np.arange(len(among.slots)), k)
            return scores, among.slots[found]
        scores, row_ids = lance_disk.disk_search(self.table, query, k, width, None if among is None else among.where)
        return scores[:k], np.searchsorted(self.row_ids, row_ids[:k])


def open_engine(
    table: IndexTable,
    folder: Path,
    texts: Texts,
    *,
    asked: Ann | None = None,
    target: float = 0.95,
    measure: bool = False,
    memory: int | None = None,
) -> Engine:
    """Open a table for searching, after bringing its derived files up to date where they are not.

    Args:
        table: The table.
        folder: Where the derived files lie.
        texts: Makes sample texts' embeddings.
        asked: How to search; as last time if not given.
        target: Recall@10 that approximate search must reach.
        measure: Measure recall anew, though nothing has changed.
        memory: The machine's memory in bytes, if not measured.
    """
    with locked(folder):
        state = read_state(folder, table)
        other = asked is not None and state is not None and state.asked != asked
        graph_is_there = state is None or state.method != "graph" or graph_file(folder, state.making).is_file()
        if state is None or state.version != table.version or other or not graph_is_there:
            table, state = bring_up_to_date(table, folder, asked, memory)
        grown = len(table) > _GROWN * state.measured_rows or len(table) * _GROWN < state.measured_rows
        if measure or grown or not (folder / BACKGROUND).is_file():
            _measure(table, folder, state, texts, target)
        write_state(folder, state)
        return _open(table, folder, state)


def _open(table: IndexTable, folder: Path, state: State) -> Engine:
    rows = map_rows(folder, state)
    alive = np.isin(rows[1], row_marks(table)[1])
    return Engine(
        table,
        state,
        rows[0],
        None if alive.all() else Chosen.of(alive),
        None if state.method == "disk" else map_vectors(folder, state),
        hnsw.Graph(graph_file(folder, state.making), state.dim) if state.method == "graph" else None,
        Background.load(folder / BACKGROUND),
    )


def _measure(table: IndexTable, folder: Path, state: State, texts: Texts, target: float) -> None:
    """Take the background statistics, and where search is approximate choose a width for each kind of query."""
    if not (folder / TEXTS).is_file():
        with atomic_write(folder / TEXTS) as temporary, temporary.open("wb") as file:
            np.save(file, texts(), allow_pickle=False)
    written: NDArray[np.float32] = np.load(folder / TEXTS, allow_pickle=False)
    rng = np.random.default_rng(0)
    rows = map_rows(folder, state)
    alive = np.flatnonzero(np.isin(rows[1], row_marks(table)[1]))
    if len(alive) == 0:
        raise ConfigError(f"{table.uri} holds no pictures: there is nothing to search.")
    some = np.sort(rng.choice(alive, min(_SAMPLED, len(alive)), replace=False))
    vectors = table.vectors(rows[0][some]).astype(np.float32)
    background = Background.of(vectors, written)
    background.save(folder / BACKGROUND)
    state.measured_rows, state.settings = len(alive), {}
    if state.method == "exact":
        return
    write_state(folder, state)
    engine = _open(table, folder, state)
    own = some[rng.permutation(len(some))[:QUERIES]]
    for kind, queries in _queries(engine, own, written[:QUERIES]).items():
        wanted = sample(_exact(engine), queries, own if kind == "image" else None)
        state.settings[kind] = _tune(engine, wanted, target)


def _queries(engine: Engine, own: NDArray[np.int64], texts: NDArray[np.float32]) -> dict[Asked, NDArray[np.float32]]:
    """Sample queries of each kind: near the pictures in some slots, some texts, and both together."""
    images = image_queries(engine.take(own))
    if len(texts) == 0:
        return {"image": images}
    mixed = []
    for image, text in zip(images, texts, strict=False):
        vector, _ = engine.background.combine([Part(image, "image"), Part(text, "text")])
        mixed.append(vector / np.linalg.norm(vector))
    return {"image": images, "text": texts, "mixed": np.stack(mixed)}


def _exact(engine: Engine) -> Callable[[NDArray[np.float32], int], Found]:
    def search(queries: NDArray[np.float32], k: int) -> Found:
        if engine.vectors is not None:
            return exact_search(engine.vectors, queries, k, None if engine.alive is None else engine.alive.slots)
        found = [engine.search(query, "image", k, exact=True) for query in queries]
        return np.stack([scores for scores, _ in found]), np.stack([slots for _, slots in found])

    return search


def _tune(engine: Engine, wanted: Sample, target: float) -> Setting:
    seconds = []
    for query in wanted.queries[:5]:
        start = time.perf_counter()
        engine.search(query, "image", 10, exact=True)
        seconds.append(time.perf_counter() - start)
    search: SearchAt
    if engine.graph is not None:

        def search(query: NDArray[np.float32], k: int, width: int) -> Found:
            return engine._in_graph(query, k, width, engine.alive)

        widths = hnsw.EXPANSIONS
    else:

        def search(query: NDArray[np.float32], k: int, width: int) -> Found:
            return engine._on_disk(query, k, width, None)

        widths = lance_disk.widths(len(engine))
    return tune(search, widths, wanted, target, 1e3 * float(np.median(seconds)))
