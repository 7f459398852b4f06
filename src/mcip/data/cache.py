"""Files read into tables: memory-mapped Arrow files in the user's cache, written again when the files change."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa

from mcip.core.errors import DataError
from mcip.core.hashes import cache_root, file_state, hash_file, is_settled
from mcip.data.remote import RemoteFile

# To be raised when the rows made from unchanged files change.
_VERSION: Final = 2
_FILE: Final = "rows.arrow"
# Caches of earlier states of the same files are kept this long, for processes that still have them open.
_KEPT_SECONDS: Final = 24 * 3600
# Rows are written in tables of about this many bytes.
_TABLE_BYTES: Final = 64 * 2**20
_TABLE_ROWS: Final = 10_000


def stored(
    tables: Callable[[], Iterator[pa.Table]],
    features: datasets.Features,
    files: Sequence[Path | RemoteFile],
    settings: str,
    empty: str = "has no rows",
) -> datasets.Dataset:
    """Rows made from files, memory-mapped from the cache; they are made where the cache does not have them.

    Args:
        tables: Makes the rows, as tables of `features.arrow_schema`.
        features: The columns.
        files: What the rows are made from. Any change of their size, times or inode makes the rows anew, and any
            change of contents where the file is too new for its times to tell.
        settings: What else the rows depend on.
        empty: What the message says of files without one row.

    Raises:
        DataError: The files cannot be read, the cache cannot be written, or there is not one row.
    """
    names = [str(file) for file in files]
    source = hashlib.sha256(repr((_VERSION, settings, names)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    state = hashlib.sha256(repr([_facts(file) for file in files]).encode()).hexdigest()[:32]
    folder = cache_root() / source / state
    with suppress(OSError, pa.ArrowException):  # not written yet, or damaged: written anew
        return _opened(folder, features, state)
    try:
        if not _write(tables, features, folder):
            raise DataError(f"{names[0] if len(names) == 1 else os.path.commonpath(names)} {empty}")
        return _opened(folder, features, state)
    except DataError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise DataError(f"cannot read {shown} (into the cache {folder}): {error}") from error


def generated(
    rows: Callable[[], Iterator[dict[str, Any]]], features: datasets.Features, files: Sequence[Path], settings: str
) -> datasets.Dataset:
    """Like `stored`, for rows that come one by one."""

    def tables() -> Iterator[pa.Table]:
        yield from in_tables(rows(), features.arrow_schema)

    return stored(tables, features, files, settings)


def in_tables(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Collect rows into tables of bounded size."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(_size(value) for value in row.values())
        if size >= _TABLE_BYTES or len(batch) >= _TABLE_ROWS:
            yield pa.Table.from_pylist(batch, schema)
            batch, size = [], 0
    if batch:
        yield pa.Table.from_pylist(batch, schema)


def folder_of(rows: datasets.Dataset) -> Path:
    """The cache folder of rows that `stored` returned."""
    return Path(rows.cache_files[0]["filename"]).parent


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` from printing progress bars and log lines of its own."""
    shown = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    if shown:
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()


def _facts(file: Path | RemoteFile) -> tuple[object, ...]:
    if isinstance(file, RemoteFile):
        return (file.uri, file.version)
    try:
        state = file_state(file)
        return state if is_settled(state) else (*state, hash_file(file))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error


def _opened(folder: Path, features: datasets.Features, state: str) -> datasets.Dataset:
    table = datasets.table.MemoryMappedTable.from_file(str(folder / _FILE))
    with suppress(OSError):
        os.utime(folder)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), fingerprint=state)


def _write(tables: Callable[[], Iterator[pa.Table]], features: datasets.Features, folder: Path) -> int:
    """Write the rows atomically and return their number."""
    schema = features.arrow_schema
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="writing-") as temporary:
        path, count = Path(temporary) / _FILE, 0
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for table in tables():
                writer.write_table(table)
                count += len(table)
        if count:
            path.replace(folder / _FILE)
    _remove_earlier(folder)
    return count


def _remove_earlier(folder: Path) -> None:
    """Remove caches of earlier states of the same files, and what writers that were killed left."""
    for other in (*folder.parent.iterdir(), *folder.glob("writing-*")):
        with suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(other)


def _size(value: object) -> int:
    if isinstance(value, dict):
        return sum(_size(part) for part in value.values())
    return len(value) if isinstance(value, bytes | str) else 8
