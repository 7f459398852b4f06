"""Files derived from a table that make searching quick: kept beside it, brought up to date from it, never the truth.

`state.json` says of which version of the table they are. Vectors stand in slots: a slot keeps its number and its
vector, which is what the graph relies on. New rows get new slots. Slots of deleted rows are passed over, until there
are so many that everything is made anew. Files of one making share a number, so that a process that has mapped those of
the last making can go on with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.artefacts import atomic_write, explain_full_disk, read_json, write_json
from mcip.core.errors import ArtefactError
from mcip.core.progress import progress
from mcip.retrieval.ann.calibrate import Asked, Setting
from mcip.retrieval.ann.hnsw import grow_graph
from mcip.retrieval.ann.lance_disk import grow_disk_index
from mcip.retrieval.ann.select import Ann, Method, choose
from mcip.retrieval.table import IndexTable

STATE: Final = "state.json"
_DEAD_SHARE: Final = 0.2
_FORMAT: Final = 1


@dataclass
class State:
    """What the derived files hold.

    Attributes:
        table: `Identity.created` of the table.
        version: The table's version.
        making: Number of the making.
        slots: Slots in use.
        dim: Dimension of the vectors.
        asked: How the table was asked to be searched.
        method: How it is searched.
        settings: For each kind of query, how it is searched; empty where nothing had to be measured.
        measured_rows: Rows that the table had when that was measured.
        format: Of these files.
    """

    table: str
    version: int
    making: int
    slots: int
    dim: int
    asked: Ann
    method: Method
    settings: dict[Asked, Setting] = field(default_factory=dict)
    measured_rows: int = 0
    format: int = _FORMAT


def derived_folder(uri: str) -> Path:
    """Where the files derived from a table lie: beside it, or in the user's cache if it is on object storage."""
    if "://" not in uri:
        path = Path(uri)
        return path.with_name(path.name + ".search")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mcip" / "search" / hashlib.sha256(uri.encode()).hexdigest()[:24]


def vectors_file(folder: Path, making: int) -> Path:
    """The vectors of the slots, float16, one after the other."""
    return folder / f"{making}.vectors.f16"


def rows_file(folder: Path, making: int) -> Path:
    """For each slot the `_rowid` of its row, and a number made of that and the picture's content; int64 (2, slots)."""
    return folder / f"{making}.rows.npy"


def graph_file(folder: Path, making: int) -> Path:
    """The graph over the slots."""
    return folder / f"{making}.graph.usearch"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the files of a folder, and keep others out while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_state(folder: Path, table: IndexTable) -> State | None:
    """The state of the files, if they are of this table and can be used."""
    if not (folder / STATE).is_file():
        return None
    try:
        content = read_json(folder / STATE)
        content["settings"] = {kind: Setting(**setting) for kind, setting in content["settings"].items()}
        state = State(**content)
    except (ArtefactError, TypeError, KeyError, AttributeError):
        return None
    identity = table.identity
    whole = state.format == _FORMAT and (state.table, state.dim) == (identity.created, identity.dim)
    return state if whole and _files_are_there(folder, state) else None


def write_state(folder: Path, state: State) -> None:
    """Write the state, and remove the files of other makings."""
    write_json(folder / STATE, asdict(state))
    for path in folder.glob("*.*.*"):
        making = path.name.partition(".")[0]
        if making.isdecimal() and int(making) != state.making:
            path.unlink(missing_ok=True)


def bring_up_to_date(
    table: IndexTable, folder: Path, asked: Ann | None, memory: int | None = None
) -> tuple[IndexTable, State]:
    """Make the files fit a version of the table; the caller holds the lock.

    Args:
        table: The version.
        folder: Where the files lie.
        asked: How to search; as last time if not given.
        memory: The machine's memory in bytes, if not measured.

    Returns:
        The version that the files are of, a newer one where an index on disk was made in the table, and the state.
    """
    state = read_state(folder, table)
    marks = row_marks(table)
    count = marks.shape[1]
    asked = asked or (state.asked if state else "auto")
    chosen = choose(count, table.identity.dim, memory) if asked == "auto" else asked
    if state is None or state.method != chosen:
        old = np.empty((2, 0), np.int64)
    else:
        old = np.load(rows_file(folder, state.making), allow_pickle=False)[:, : state.slots]
    gone = ~np.isin(old[1], marks[1])
    if state is None or state.method != chosen or gone.sum() > _DEAD_SHARE * max(1, old.shape[1]) or chosen == "disk":
        making = 1 + max((int(path.name.partition(".")[0]) for path in folder.glob("[0-9]*.*.*")), default=0)
        settings, measured = (
            ({}, 0) if state is None or state.method != chosen else (state.settings, state.measured_rows)
        )
        state = State(table.identity.created, 0, making, 0, table.identity.dim, asked, chosen, settings, measured)
        old = np.empty((2, 0), np.int64)
    state.asked = asked
    new = marks[:, ~np.isin(marks[1], old[1])]
    if chosen == "disk":
        table = grow_disk_index(table)
    else:
        _append_vectors(table, folder, state, new[0])
    rows = np.concatenate([old, new], 1)
    with atomic_write(rows_file(folder, state.making)) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    # Not yet of any version: a process that is killed while it links goes on with these slots.
    state.version, state.slots = 0, rows.shape[1]
    write_state(folder, state)
    if chosen == "graph":
        vectors = map_vectors(folder, state)
        with progress("link vectors", state.slots, "vectors") as advance:
            grow_graph(graph_file(folder, state.making), vectors, advance)
    state.version = table.version
    return table, state


def row_marks(table: IndexTable) -> NDArray[np.int64]:
    """The `_rowid` of each row, and a number made of it and of the picture's content; int64 (2, rows), by `_rowid`.

    A row whose picture was replaced keeps its `_rowid`, but not its mark.
    """
    rows = table.read(["hash"])
    row_ids = rows["_rowid"].to_numpy().astype(np.int64)
    hashes = np.array([int((name or "0")[:15], 16) for name in rows["hash"].to_pylist()], np.int64)
    mixed = row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ hashes.astype(np.uint64)
    order = np.argsort(row_ids)
    return np.stack([row_ids, mixed.view(np.int64)])[:, order]


def map_vectors(folder: Path, state: State) -> NDArray[np.float16]:
    """The vectors of the slots, float16 of shape (slots, D), memory-mapped."""
    if state.slots == 0:
        return np.empty((0, state.dim), np.float16)
    path = vectors_file(folder, state.making)
    # "c" allows torch to share the memory; what is written there would never reach the file.
    return np.memmap(path, np.float16, "c", shape=(state.slots, state.dim))


def map_rows(folder: Path, state: State) -> NDArray[np.int64]:
    """What `rows_file` says, of the slots in use."""
    rows: NDArray[np.int64] = np.load(rows_file(folder, state.making), allow_pickle=False)[:, : state.slots]
    return rows


def _append_vectors(table: IndexTable, folder: Path, state: State, row_ids: NDArray[np.int64]) -> None:
    """Write the vectors of these rows behind those of the slots in use."""
    path = vectors_file(folder, state.making)
    size = state.slots * state.dim * 2
    with explain_full_disk(path), path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        for vectors in _vectors_of(table, row_ids):
            file.write(np.ascontiguousarray(vectors).data)
        file.flush()
        os.fsync(file.fileno())


def _vectors_of(table: IndexTable, row_ids: NDArray[np.int64], size: int = 16_384) -> Iterator[NDArray[np.float16]]:
    """The vectors of rows, in this order; by reading through the table where they are its rows as they stand there."""
    every = table.read([])["_rowid"].to_numpy().astype(np.int64)
    if np.array_equal(every, row_ids):
        for _, vectors in table.vector_batches(size):
            yield vectors
        return
    for start in range(0, len(row_ids), size):
        yield table.vectors(row_ids[start : start + size])


def _files_are_there(folder: Path, state: State) -> bool:
    if not rows_file(folder, state.making).is_file():
        return False
    vectors = vectors_file(folder, state.making)
    size = state.slots * state.dim * 2
    return state.method == "disk" or (vectors.is_file() and vectors.stat().st_size >= size)
