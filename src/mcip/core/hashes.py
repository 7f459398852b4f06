"""Hashes of files' contents: each file is read once, and its hash remembered in the user's cache."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from mcip.core.progress import Advance, console, progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

DIGEST_BYTES: Final = 16
# Stands for a file that is not there or cannot be read. No content has this hash.
ABSENT: Final = bytes(DIGEST_BYTES)

FileState = tuple[str, int, int, int, int]

# A file may change again within one tick of its file system's clock; only times older than this are trusted.
_SETTLED_NS: Final = 2_000_000_000
THREADS: Final = min(8, os.cpu_count() or 1)
_FILES_AT_ONCE: Final = 5_000
_STATES_AT_ONCE: Final = 250
# A bar is shown from this many files or bytes on.
BAR_FROM: Final = 1_000
_BAR_FROM_BYTES: Final = 256 * 2**20


def cache_root() -> Path:
    """Where tables and hashes are cached: MCIP_CACHE where it is set, the user's cache otherwise."""
    return Path(os.environ.get("MCIP_CACHE") or platformdirs.user_cache_dir("mcip"))


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's contents, in hexadecimal, as other people's files state it."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_file(path: str | os.PathLike[str]) -> bytes:
    """BLAKE2b of a regular file's contents, 16 bytes.

    Raises:
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - one call for strings and paths
        raise OSError(f"{path} is no regular file")  # reading a pipe would not end
    with open(path, "rb") as stream:  # noqa: PTH123
        return hashlib.file_digest(stream, blake).digest()


def file_state(path: str | os.PathLike[str]) -> FileState:
    """What tells a file from its earlier self without reading it: path, size, mtime and ctime in ns, inode.

    Raises:
        OSError: There is no such file.
    """
    facts = os.stat(path)  # noqa: PTH116
    return (os.path.abspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)  # noqa: PTH100


def is_settled(state: FileState) -> bool:
    """Whether a file is old enough for another change to show in its times."""
    return time.time_ns() - max(state[2], state[3]) > _SETTLED_NS


def hash_files(paths: Sequence[str]) -> list[bytes]:
    """`hash_file` of each path, `ABSENT` where a file cannot be read.

    Files are read in threads, and only where the cache has no hash for their present state. Memory is bounded: a few
    thousand files are looked at together.
    """
    hashes: list[bytes] = []
    with ExitStack() as stack:
        memory = stack.enter_context(_file_hashes())
        threads = stack.enter_context(ThreadPoolExecutor(THREADS))
        advance: Advance | None = None
        for start in range(0, len(paths), _FILES_AT_ONCE):
            part = paths[start : start + _FILES_AT_ONCE]
            slices = (part[at : at + _STATES_AT_ONCE] for at in range(0, len(part), _STATES_AT_ONCE))
            states = list(chain.from_iterable(threads.map(_states, slices)))
            known = memory.find([state for state in states if state is not None])
            unknown = [number for number, state in enumerate(states) if state is not None and state not in known]
            size = sum(state[1] for state in (states[number] for number in unknown) if state is not None)
            if unknown and advance is None and (len(paths) >= BAR_FROM or size >= _BAR_FROM_BYTES):
                advance = stack.enter_context(progress("hashing files", len(paths), "files", start))
            found = [ABSENT if state is None else known.get(state, ABSENT) for state in states]
            fresh: list[tuple[FileState, bytes]] = []
            results = threads.map(_hash_or_absent, [part[number] for number in unknown])
            for number, (digest, after) in zip(unknown, results, strict=True):
                found[number] = digest
                state = states[number]
                if state is not None and state == after and digest != ABSENT and is_settled(state):
                    fresh.append((state, digest))
                if advance is not None:
                    advance(1)
            memory.add(fresh)
            if advance is not None:
                advance(len(part) - len(unknown))
            hashes += found
    return hashes


def blake(data: Buffer = b"") -> hashlib.blake2b:
    """BLAKE2b of 16 bytes, for `hashlib.file_digest` and buffers."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def _state_or_none(path: str) -> FileState | None:
    try:
        return file_state(path)
    except (OSError, ValueError):
        return None


def _states(paths: Sequence[str]) -> list[FileState | None]:
    return [_state_or_none(path) for path in paths]


def _hash_or_absent(path: str) -> tuple[bytes, FileState | None]:
    """A file's hash, and its state after it was read."""
    try:
        return hash_file(path), _state_or_none(path)
    except (OSError, ValueError):
        return ABSENT, None


class _FileHashes:
    """Hashes by the state of files, in one SQLite file; without a file that can be written nothing is remembered."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self.connection = connection

    def find(self, states: Sequence[FileState]) -> dict[FileState, bytes]:
        """The known hashes of these states."""
        found: dict[FileState, bytes] = {}
        if self.connection is None:
            return found
        by_key = {_key(state): state for state in states}
        keys = list(by_key)
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT path, size, mtime, ctime, inode, hash FROM files WHERE path IN ({marks})"
            try:
                rows = self.connection.execute(query, part).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                return found
            for key, size, mtime, ctime, inode, digest in rows:
                state = by_key[key]
                if state[1:] == (size, mtime, ctime, int(inode)) and len(digest) == DIGEST_BYTES:
                    found[state] = digest
        return found

    def add(self, hashes: Sequence[tuple[FileState, bytes]]) -> None:
        """Remember hashes, in place of those of earlier states."""
        if self.connection is None or not hashes:
            return
        # Inodes may have 64 bits without a sign, more than an INTEGER holds.
        rows = [(_key(state), *state[1:4], str(state[4]), digest) for state, digest in hashes]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        note_not_remembered(error)
        self.connection = None


def _key(state: FileState) -> bytes:
    return os.fsencode(state[0])


@contextmanager
def _file_hashes() -> Iterator[_FileHashes]:
    path = cache_root() / "contents.sqlite"
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = _connected(path)
    except (OSError, sqlite3.Error) as error:
        note_not_remembered(error)
    if connection is None:
        yield _FileHashes(None)
        return
    with closing(connection):
        yield _FileHashes(connection)


def _connected(path: Path) -> sqlite3.Connection:
    schema = (
        "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, "
        "inode TEXT, hash BLOB) WITHOUT ROWID"
    )
    connection = sqlite3.connect(path, timeout=60)
    try:
        connection.execute(schema)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):  # locked, read-only or no space left
            raise
        path.unlink()  # damaged: begun anew
        connection = sqlite3.connect(path, timeout=60)
        connection.execute(schema)
    return connection


def note_not_remembered(error: Exception) -> None:
    """Say that hashing will be as slow the next time."""
    console.print(
        f"Hashes of images are not remembered, so each run reads all of them: {error}", markup=False, highlight=False
    )
