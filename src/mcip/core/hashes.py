"""Content hashes of files, remembered while a file stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import platformdirs

_TABLE = "create table if not exists hashes (path text primary key, facts text not null, hash text not null)"


def file_hash(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal; every byte is read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, read only where the file is not the one that was hashed last time.

    A file counts as the same while its path, size, modification and change time (in ns) and inode are: writing to it
    changes them. What was hashed is remembered in the user's cache.
    """
    resolved = Path(path).resolve()
    facts = _facts(resolved)
    with _remembered() as database:
        row = database.execute("select facts, hash from hashes where path = ?", (os.fspath(resolved),)).fetchone()
        if row is not None and row[0] == facts:
            return str(row[1])
    hashed = file_hash(resolved)
    if _facts(resolved) == facts:
        with _remembered() as database:
            database.execute("insert or replace into hashes values (?, ?, ?)", (os.fspath(resolved), facts, hashed))
    return hashed


def _facts(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


@contextlib.contextmanager
def _remembered() -> Iterator[sqlite3.Connection]:
    """The remembered hashes; in memory where the user's cache cannot be written, so that nothing is remembered."""
    try:
        database = sqlite3.connect(_database(), timeout=30)
        database.execute("pragma synchronous = off")
        database.execute(_TABLE)
    except (OSError, sqlite3.Error):
        database = sqlite3.connect(":memory:")
        database.execute(_TABLE)
    try:
        with contextlib.suppress(sqlite3.OperationalError), database:
            yield database
    finally:
        database.close()


@cache
def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("mcip"))


def _database() -> Path:
    folder = Path(os.environ["MCIP_CACHE"]) if os.environ.get("MCIP_CACHE") else _folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "hashes.sqlite"
