"""Opening a table for searching: its derived files brought up to date, and approximate search calibrated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.core.files import atomic_write
from mcip.retrieval.ann import hnsw, lance_disk
from mcip.retrieval.ann.build import row_marks, update_files
from mcip.retrieval.ann.cache import (
    BACKGROUND,
    PROBES,
    SCORES,
    UNRELATED,
    State,
    derived_folder,
    folder_beside,
    locked,
    map_vectors,
    read_rows,
    read_state,
    write_state,
)
from mcip.retrieval.ann.calibrate import IMAGES, QUERIES, QueryKind, Setting, calibrate, image_queries, sample
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import Ranked, exact_search
from mcip.retrieval.ann.null_scores import calibrate_scores
from mcip.retrieval.ann.probe_texts import default_texts, probe_texts
from mcip.retrieval.ann.resident import touch_pages
from mcip.retrieval.ann.select import Ann, fits_in_memory
from mcip.retrieval.ann.subset import RowSubset
from mcip.retrieval.fusion import Background, Part
from mcip.retrieval.score_calibration import ScoreCalibration
from mcip.retrieval.table import IndexTable

# Rows that background statistics are taken of, and the growth after which search is calibrated again.
_SAMPLED: Final = 1000
_GROWN: Final = 1.2
# Queries whose exact search is timed.
_TIMED: Final = 5

# Embeds texts, float32 (T, D) of unit length; called when search has to be calibrated.
EmbedTexts: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]


def open_engine(
    table: IndexTable,
    embed_texts: EmbedTexts,
    *,
    requested: Ann | None = None,
    target: float | None = None,
    recalibrate: bool = False,
    every_byte: bool = False,
    memory: int | None = None,
) -> Engine:
    """Open a version of a table for searching, after bringing its derived files up to date where they are not.

    Where the folder beside the table cannot be written to, its files are used if they are up to date; otherwise they
    are built in the user's cache.

    Args:
        table: The version.
        embed_texts: Embeds probe texts.
        requested: How to search; as last time if not given.
        target: Recall@10 that approximate search must reach; as last time if not given, at first 0.95.
        recalibrate: Calibrate again, though nothing has changed.
        every_byte: Compare the checksums of large files too; see `mcip.retrieval.ann.cache.read_state`.
        memory: Bytes of memory, if not measured.
    """
    if table.identity.milvus is not None:
        return _open_in_milvus(table, embed_texts, target, recalibrate)
    marks = row_marks(table)
    folder, beside = derived_folder(table.uri), folder_beside(table.uri)
    if beside is not None and beside != folder and not recalibrate:
        state = read_state(beside, table, every_byte)
        current = state is not None and _is_current(state, table, marks, beside, requested)
        calibrated = state is not None and _is_measured(state, table, target) and state.scores in state.files
        if state is not None and current and calibrated:
            return _open_for_queries(table, marks, beside, state, memory)
    with locked(folder):
        state = read_state(folder, table, every_byte)
        if state is None or not _is_current(state, table, marks, folder, requested):
            table, state = update_files(table, marks, folder, state, requested, memory)
        stale = recalibrate or not _is_measured(state, table, target)
        if stale:
            state.target = state.target if target is None else target
            _calibrate(table, marks, folder, state, embed_texts)
        if stale or state.scores not in state.files:
            _calibrate_scores(table, _open(table, marks, folder, state), folder, state, embed_texts)
        write_state(folder, state)
        return _open_for_queries(table, marks, folder, state, memory)


def _is_current(state: State, table: IndexTable, marks: NDArray[np.int64], folder: Path, requested: Ann | None) -> bool:
    """Whether the files hold every row of this version, and are searched as requested."""
    return (
        state.version == table.version
        and state.method != "milvus"
        and requested in (None, state.requested)
        and (state.method != "graph" or state.graph in state.files)
        # Another table that was put at the same place may have the same name and number.
        and bool(np.isin(marks[1], read_rows(folder, state)[1]).all())
    )


def _is_measured(state: State, table: IndexTable, target: float | None) -> bool:
    rows, calibrated = len(table), state.calibrated_rows
    return (
        target in (None, state.target)
        and calibrated / _GROWN <= rows <= calibrated * _GROWN
        and BACKGROUND in state.files
    )


def _open_for_queries(
    table: IndexTable, marks: NDArray[np.int64], folder: Path, state: State, memory: int | None
) -> Engine:
    """Open the files, and bring the vectors that candidates are rescored by into memory where there is room."""
    engine = _open(table, marks, folder, state)
    if engine.graph is not None and engine.vectors is not None and fits_in_memory(state.slots, state.dim, memory):
        touch_pages(engine.vectors)
    return engine


def _open(table: IndexTable, marks: NDArray[np.int64], folder: Path, state: State) -> Engine:
    rows = read_rows(folder, state)
    alive = np.isin(rows[1], marks[1])
    return Engine(
        table,
        folder,
        state,
        rows[0],
        None if alive.all() else RowSubset.of(alive),
        None if state.method == "disk" else map_vectors(folder, state),
        hnsw.Graph(folder / state.graph, state.dim) if state.method == "graph" else None,
        Background.load(folder / BACKGROUND),
        ScoreCalibration.load(folder / state.scores) if state.scores in state.files else ScoreCalibration({}),
    )


def _calibrate(
    table: IndexTable, marks: NDArray[np.int64], folder: Path, state: State, embed_texts: EmbedTexts
) -> None:
    """Take the background statistics, and where search is approximate choose a width for each kind of query."""
    if marks.shape[1] == 0:
        raise ConfigError(f"{table.uri} holds no images: there is nothing to search.")
    rng = np.random.default_rng(0)
    rows = read_rows(folder, state)
    alive = np.flatnonzero(np.isin(rows[1], marks[1]))
    sampled = np.sort(rng.choice(alive, min(_SAMPLED, len(alive)), replace=False))
    texts = _take_background(table, rows[0][sampled], folder, state, embed_texts)
    state.calibrated_rows, state.settings = len(alive), {}
    if state.method == "exact":
        return
    write_state(folder, state)
    engine = _open(table, marks, folder, state)
    sources = sampled[rng.permutation(len(sampled))[:IMAGES]]
    for kind, queries in _queries(engine, sources, texts[:QUERIES]).items():
        state.settings[kind] = _setting(engine, queries, sources if kind == "image" else None)


def _take_background(
    table: IndexTable, row_ids: NDArray[np.int64], folder: Path, state: State, embed_texts: EmbedTexts
) -> NDArray[np.float32]:
    """Take the background statistics of these rows and of the probe texts, which are returned."""
    texts = _embedded(folder, state, PROBES, embed_texts, lambda: probe_texts(table))
    Background.of(table.vectors(row_ids).astype(np.float32), texts).save(folder / BACKGROUND)
    state.record(folder / BACKGROUND, BACKGROUND)
    return texts


def _calibrate_scores(table: IndexTable, engine: Engine, folder: Path, state: State, embed_texts: EmbedTexts) -> None:
    """Take the distributions of what unrelated queries score."""
    # Captions of the table are related to it; general texts mostly are not.
    texts = default_texts()
    name = PROBES if probe_texts(table) == texts else UNRELATED
    vectors = _embedded(folder, state, name, embed_texts, lambda: texts)
    calibrate_scores(engine, vectors).save(folder / state.scores)
    state.record(folder / state.scores, SCORES)


def unrelated_texts(folder: Path, state: State) -> NDArray[np.float32]:
    """The embeddings of general texts, (T, D)."""
    vectors: NDArray[np.float32] = np.load(
        folder / (UNRELATED if UNRELATED in state.files else PROBES), allow_pickle=False
    )
    return vectors


def _embedded(
    folder: Path, state: State, name: str, embed_texts: EmbedTexts, texts: Callable[[], Sequence[str]]
) -> NDArray[np.float32]:
    """The embeddings of texts, kept in a file."""
    path = folder / name
    if name not in state.files:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, embed_texts(texts()), allow_pickle=False)
        state.record(path, name)
    vectors: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return vectors


def _open_in_milvus(table: IndexTable, embed_texts: EmbedTexts, target: float | None, recalibrate: bool) -> Engine:
    """Open an index whose vectors Milvus holds, and calibrate its search where that was not done yet."""
    from mcip.retrieval.milvus.engine import calibrate_milvus, open_milvus, report_difference
    from mcip.retrieval.milvus.external import open_collection

    collection = open_collection(table)
    held = report_difference(table, collection)
    folder = derived_folder(table.uri)
    with locked(folder):
        state = read_state(folder, table)
        if state is None or state.method != "milvus":
            state = State(table.identity.created, table.version, 0, 0, table.identity.dim, "auto", "milvus")
        row_ids = np.sort(table.read([])["_rowid"].to_numpy().astype(np.int64))
        if len(row_ids) == 0:
            raise ConfigError(f"{table.uri} holds no images: there is nothing to search.")
        rng = np.random.default_rng(0)
        sampled = np.sort(rng.choice(len(row_ids), min(_SAMPLED, len(row_ids)), replace=False))
        if not _is_measured(state, table, None):
            _take_background(table, row_ids[sampled], folder, state, embed_texts)
            state.calibrated_rows = len(row_ids)
        state.settings, state.target = held.settings, held.target
        write_state(folder, state)
        engine = open_milvus(table, collection, state, row_ids)
        grown = not held.calibrated_rows / _GROWN <= len(row_ids) <= held.calibrated_rows * _GROWN
        if recalibrate or grown or target not in (None, held.target):
            state.target = held.target if target is None else target
            texts: NDArray[np.float32] = np.load(folder / PROBES, allow_pickle=False)
            sources = sampled[rng.permutation(len(sampled))[:QUERIES]]
            queries = _queries(engine, sources, texts[:QUERIES])
            state.settings = calibrate_milvus(engine, queries, sources, state.target)
            collection.write_settings(state.settings, state.target, len(row_ids))
        if recalibrate or grown or state.scores not in state.files:
            _calibrate_scores(table, engine, folder, state, embed_texts)
            write_state(folder, state)
    return replace(engine, calibration=ScoreCalibration.load(folder / state.scores))


def _queries(
    engine: Engine, sources: NDArray[np.int64], texts: NDArray[np.float32]
) -> dict[QueryKind, NDArray[np.float32]]:
    """Sample queries of each kind: near the images in some slots, texts, and both together."""
    images = image_queries(engine.take(sources))
    if len(texts) == 0:
        return {"image": images}
    mixed = []
    for image, text in zip(images, texts, strict=False):
        vector, _ = engine.background.combine([Part(image, "image"), Part(text, "text")])
        mixed.append(vector / np.linalg.norm(vector))
    return {"image": images, "text": texts, "mixed": np.stack(mixed)}


def _setting(engine: Engine, queries: NDArray[np.float32], sources: NDArray[np.int64] | None) -> Setting:
    def exact(queries: NDArray[np.float32], k: int) -> Ranked:
        if engine.vectors is not None:
            return exact_search(engine.vectors, queries, k, None if engine.alive is None else engine.alive.slots)
        ranked = [engine.search_at(query, k, 0) for query in queries]
        return np.stack([scores for scores, _ in ranked]), np.stack([slots for _, slots in ranked])

    expected = sample(exact, queries, sources)
    seconds = []
    for query in queries[:_TIMED]:
        start = time.perf_counter()
        engine.search_at(query, 10, 0)
        seconds.append(time.perf_counter() - start)
    widths = hnsw.EXPANSIONS if engine.graph is not None else lance_disk.widths(len(engine))
    return calibrate(engine.search_at, widths, expected, engine.state.target, 1e3 * float(np.median(seconds)))
