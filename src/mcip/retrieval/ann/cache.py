"""Derived files: what makes searching a table quick. They can be deleted at any time and are built again.

`state.json` says which version of the table they are of, and holds a checksum of every file and of itself. Vectors
stand in slots: a slot keeps its number and its vector, which is what the graph relies on. New rows get new slots. Slots
of deleted rows are passed over until there are so many that a new generation is built. Files carry a generation
number, so readers of the previous generation keep working.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.files import read_json, write_json
from mcip.retrieval.ann.calibrate import QueryKind, Setting
from mcip.retrieval.ann.checksums import Checksum
from mcip.retrieval.ann.select import Ann, Method
from mcip.retrieval.location import is_remote, table_location
from mcip.retrieval.table import IndexTable

STATE: Final = "state.json"
PROBES: Final = "probe_texts.npy"
UNRELATED: Final = "unrelated_texts.npy"
BACKGROUND: Final = "similarities.npz"
LOCK: Final = ".lock"
ROWS: Final = ".rows.npy"
GRAPH: Final = ".graph.rabitq"
SCORES: Final = ".scores.json"
_FORMAT: Final = 3
_CHECKSUM: Final = "checksum"


@dataclass
class State:
    """What the derived files hold.

    Attributes:
        table: `Identity.created` of the table.
        version: The number of the table's version; 0 while they are being built.
        generation: Their number.
        slots: Slots in use.
        dim: Dimension of the vectors.
        requested: How the table shall be searched.
        method: How it is searched.
        settings: For each kind of query, how it is searched; empty where search is exact.
        calibrated_rows: Rows that the table had when that was measured.
        target: Recall@10 that it was calibrated for.
        files: The checksum of each file, by its name.
        format: Of these files.
    """

    table: str
    version: int
    generation: int
    slots: int
    dim: int
    requested: Ann
    method: Method
    settings: dict[QueryKind, Setting] = field(default_factory=dict)
    calibrated_rows: int = 0
    target: float = 0.95
    files: dict[str, Checksum] = field(default_factory=dict)
    format: int = _FORMAT

    @property
    def vectors(self) -> str:
        """The file of the slots' vectors, float16, one after the other."""
        return f"{self.generation}.vectors.f16"

    @property
    def rows(self) -> str:
        """The file of each slot's `_rowid`, and a number made of it and of the image's content; int64 (2, slots)."""
        return f"{self.generation}.{self.slots}{ROWS}"

    @property
    def graph(self) -> str:
        """The file of the graph over all slots."""
        return f"{self.generation}.{self.slots}{GRAPH}"

    @property
    def scores(self) -> str:
        """The file of what unrelated queries score; see `mcip.retrieval.score_calibration`."""
        return f"{self.generation}{SCORES}"

    def record(self, path: Path, suffix: str) -> None:
        """Note the checksum of a file that was written, in place of that of the file with this suffix."""
        others = {name: checksum for name, checksum in self.files.items() if not name.endswith(suffix)}
        self.files = {**others, path.name: Checksum.of(path)}


def derived_folder(uri: str) -> Path:
    """Where the files derived from a table are written.

    Beside it if that can be written to, otherwise in the user's cache: `$XDG_CACHE_HOME/mcip` or `~/.cache/mcip`.
    """
    beside = folder_beside(uri)
    if beside is not None and _can_write(beside):
        return beside
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mcip" / "search" / hashlib.sha256(os.fsencode(table_location(uri))).hexdigest()[:24]


def folder_beside(uri: str) -> Path | None:
    """The folder for derived files beside a table; None where the table is on object storage."""
    if is_remote(uri):
        return None
    path = Path(table_location(uri))
    return path.with_name(path.name + ".search")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the files of a folder, and keep others out while the block runs.

    Raises:
        ArtefactError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire()
    except OSError as error:
        raise ArtefactError(
            f"{folder} cannot be written to ({error.strerror or error}): it holds files that make searching quick. "
            "Make it writable, or set XDG_CACHE_HOME to a folder that is."
        ) from error
    try:
        yield
    finally:
        lock.release()


def read_state(folder: Path, table: IndexTable, every_byte: bool = False) -> State | None:
    """Read the state of the files of a folder, and check them.

    Files that do not fit their checksums are left out of `State.files`, so that they are built again.

    Args:
        folder: Where they lie.
        table: Whose files they should be.
        every_byte: Compare the checksums of files above 256 MB too, which takes about 0.3 s per GB and reads them from
            the disk. Otherwise only their sizes are compared.

    Returns:
        The state; None if there is none, it is damaged or another table's, or rows or vectors are damaged.
    """
    try:
        content = read_json(folder / STATE)
        checksum = content.pop(_CHECKSUM)
        if checksum != _digest(content):
            return None
        settings = {kind: Setting(**setting) for kind, setting in content.pop("settings").items()}
        files = {name: Checksum(**facts) for name, facts in content.pop("files").items()}
        state = State(**content, settings=settings, files=files)
    except (ArtefactError, OSError, TypeError, KeyError, AttributeError):
        return None
    identity = table.identity
    if (state.format, state.table, state.dim) != (_FORMAT, identity.created, identity.dim):
        return None
    state.files = {name: facts for name, facts in files.items() if facts.fits(folder / name, every_byte)}
    needed = {"milvus": set(), "disk": {state.rows}}.get(state.method, {state.rows, state.vectors})
    return state if needed <= state.files.keys() else None


def write_state(folder: Path, state: State) -> None:
    """Write the state, and remove the files of other generations."""
    content: dict[str, Any] = asdict(state)
    write_json(folder / STATE, {**content, _CHECKSUM: _digest(content)})
    for path in folder.glob("[0-9]*.*"):
        if path.name not in state.files:
            path.unlink(missing_ok=True)


def map_vectors(folder: Path, state: State) -> NDArray[np.float16]:
    """The vectors of the slots, float16 of shape (slots, D), memory-mapped."""
    if state.slots == 0:
        return np.empty((0, state.dim), np.float16)
    # "c" allows torch to share the memory; what is written there would never reach the file.
    # As a plain array: every slice of a `np.memmap` is one again, which takes longer than a query of few vectors.
    return np.asarray(np.memmap(folder / state.vectors, np.float16, "c", shape=(state.slots, state.dim)))


def read_rows(folder: Path, state: State) -> NDArray[np.int64]:
    """What the file `State.rows` says."""
    rows: NDArray[np.int64] = np.load(folder / state.rows, allow_pickle=False)
    return rows


def _digest(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _can_write(folder: Path) -> bool:
    """Whether files of a folder can be written, or the folder be made where there is none."""
    present = next(path for path in (folder, *folder.parents) if path.exists())
    lock = folder / LOCK
    effective = os.access in os.supports_effective_ids
    return os.access(present, os.W_OK | os.X_OK, effective_ids=effective) and (
        not lock.exists() or os.access(lock, os.W_OK, effective_ids=effective)
    )
