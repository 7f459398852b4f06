"""Building the derived files of a table, and bringing them up to date with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.files import atomic_write, explain_full_disk
from mcip.core.progress import progress
from mcip.retrieval.ann.cache import GRAPH, ROWS, State, map_vectors, read_rows, write_state
from mcip.retrieval.ann.checksums import Checksum
from mcip.retrieval.ann.hnsw import grow_graph
from mcip.retrieval.ann.lance_disk import grow_disk_index
from mcip.retrieval.ann.select import Ann, Method, choose
from mcip.retrieval.codec import check_engine, index_form
from mcip.retrieval.table import IndexTable

# The share of the slots whose rows may be gone before a new generation is built.
_DEAD_SHARE: Final = 0.2


def row_marks(table: IndexTable) -> NDArray[np.int64]:
    """The `_rowid` of each row, and a number made of it and of the image's content; int64 (2, rows), by `_rowid`.

    A row whose image was replaced keeps its `_rowid`, but not its mark.
    """
    rows = table.read(["hash"])
    row_ids = rows["_rowid"].to_numpy().astype(np.int64)
    hashes = np.array([int((name or "0")[:15], 16) for name in rows["hash"].to_pylist()], np.int64)
    mixed = row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ hashes.astype(np.uint64)
    order = np.argsort(row_ids)
    return np.stack([row_ids, mixed.view(np.int64)])[:, order]


def update_files(
    table: IndexTable,
    marks: NDArray[np.int64],
    folder: Path,
    state: State | None,
    requested: Ann | None,
    memory: int | None = None,
) -> tuple[IndexTable, State]:
    """Make the files fit a version of a table; the caller holds the lock and writes the state.

    Args:
        table: The version.
        marks: Its `row_marks`.
        folder: Where the files lie.
        state: Of the files that are there, if they can be used.
        requested: How to search; as last time if not given.
        memory: Bytes of memory, if not measured.

    Returns:
        The version that the files are of, a newer one where an index on disk was built in the table, and the state.
    """
    requested = requested or (state.requested if state else "auto")
    method = choose(marks.shape[1], table.identity.dim, memory) if requested == "auto" else requested
    form = index_form(table.identity.embedding)
    if requested == "auto" and method == "disk" and form.kind != "float16":
        method = "graph"
    check_engine(form, method, milvus=False)
    if state is None or state.method != method:
        old = None
    else:
        old = read_rows(folder, state)
        gone = int((~np.isin(old[1], marks[1])).sum())
        if gone > _DEAD_SHARE * max(1, old.shape[1]) or method == "disk":
            old = None
    if state is None or old is None:
        state, old = _new_generation(table, folder, state, requested, method), np.empty((2, 0), np.int64)
    state.requested = requested
    new = marks[:, ~np.isin(marks[1], old[1])]
    if method == "disk":
        table = grow_disk_index(table)
    else:
        _append_vectors(table, folder, state, new[0])
    # Not yet of any version: a process that is killed while it links resumes with these slots.
    state.version, state.slots = 0, old.shape[1] + new.shape[1]
    with atomic_write(folder / state.rows) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([old, new], 1), allow_pickle=False)
    state.record(folder / state.rows, ROWS)
    write_state(folder, state)
    if method == "graph":
        _link(folder, state)
    state.version = table.version
    return table, state


def _new_generation(table: IndexTable, folder: Path, state: State | None, requested: Ann, method: Method) -> State:
    generations = [path.name.partition(".")[0] for path in folder.glob("[0-9]*.*")]
    generation = 1 + max((int(name) for name in generations if name.isdecimal()), default=0)
    new = State(table.identity.created, 0, generation, 0, table.identity.dim, requested, method)
    if state is not None:
        # What was measured of the same table still holds, as long as it is searched by the same method.
        new.files = {name: checksum for name, checksum in state.files.items() if not name[0].isdecimal()}
        if state.method == method:
            new.settings, new.calibrated_rows = state.settings, state.calibrated_rows
        new.target = state.target
    return new


def _append_vectors(table: IndexTable, folder: Path, state: State, row_ids: NDArray[np.int64]) -> None:
    """Write the vectors of these rows behind those of the slots in use."""
    path = folder / state.vectors
    checksum = state.files.get(state.vectors, Checksum())
    with explain_full_disk(path), path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(checksum.size)
        file.seek(checksum.size)
        for vectors in _vectors_of(table, row_ids):
            content = np.ascontiguousarray(vectors).tobytes()
            file.write(content)
            checksum = checksum.extended(content)
        file.flush()
        os.fsync(file.fileno())
    state.files[state.vectors] = checksum


def _vectors_of(table: IndexTable, row_ids: NDArray[np.int64], size: int = 16_384) -> Iterator[NDArray[np.float16]]:
    """The vectors of rows, in this order; by reading through the table where they are its rows as they stand there."""
    every = table.read([])["_rowid"].to_numpy().astype(np.int64)
    if np.array_equal(every, row_ids):
        for _, vectors in table.vector_batches(size):
            yield vectors
        return
    for start in range(0, len(row_ids), size):
        yield table.vectors(row_ids[start : start + size])


def _link(folder: Path, state: State) -> None:
    """Build the graph over all slots, from the one over the first of them if there is one."""
    start = next((folder / name for name in state.files if name.endswith(GRAPH)), None)
    with progress("link vectors", state.slots, "vectors") as advance:
        grow_graph(map_vectors(folder, state), folder / state.graph, start, advance)
    state.record(folder / state.graph, GRAPH)
