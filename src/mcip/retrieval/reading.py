"""Reading the file of an indexed image again, by the path that stands in the table."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from mcip.core.errors import DataError, UnreadableImage
from mcip.data.locate import locate
from mcip.retrieval.location import is_remote, local_path

if TYPE_CHECKING:
    import datasets

# Reads the file of an image by its number; raises UnreadableImage.
Content: TypeAlias = Callable[[int], bytes]

_EMBEDDED: Final = re.compile(r"(.+)#(\d+)", re.DOTALL)
# Tables that stay open for reading single images.
_OPEN: Final = 4


def read_image(path: str) -> bytes:
    """The file of an indexed image, by the path that stands in the table.

    Raises:
        UnreadableImage: It is gone.
    """
    if not path:
        raise UnreadableImage("it was indexed from an object in memory, not from a file")
    uri, row = _embedded(path)
    if is_remote(path):
        return Objects(*filesystem_of(path), [])(path) if row is None else _TABLES.of(uri)(row)
    file = local_path(path)
    if row is None or os.path.isfile(file):  # noqa: PTH113 - False for a path that no file can have
        return read_file(file)
    try:
        return _TABLES.of(uri)(row)
    except (DataError, IndexError) as error:
        raise UnreadableImage(f"row {row} of {uri} is gone: {error}") from error


def content_hash(content: bytes) -> str:
    """SHA-256 of an image's file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_file(file: Path) -> bytes:
    """The content of a regular file.

    Raises:
        UnreadableImage: It is gone, or cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            # Reading a pipe or a device would not end.
            raise UnreadableImage(f"{file} is no regular file")
        return file.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(f"no file {file}") from None
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


class LocalFiles:
    """Files of this machine, by number."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __call__(self, number: int) -> bytes:
        """Read the file of an image."""
        return read_file(Path(self.paths[number]))


class Rows:
    """Images of a table: embedded, or files that it names."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows.select_columns("image")

    def __call__(self, number: int) -> bytes:
        """Read the file of an image."""
        image = self.rows[number]["image"]
        return image["bytes"] if image["bytes"] is not None else read_image(image["path"])


class Objects:
    """Objects of a file system of Arrow's, by number or by URI."""

    def __init__(self, filesystem: Any, scheme: str, uris: Sequence[str]) -> None:
        self.filesystem = filesystem
        self.scheme = scheme
        self.uris = uris

    def __call__(self, number: int | str) -> bytes:
        """Read an object."""
        uri = number if isinstance(number, str) else self.uris[number]
        try:
            with self.filesystem.open_input_stream(uri.removeprefix(self.scheme)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            raise UnreadableImage(f"no object {uri}") from None
        except OSError as error:
            raise UnreadableImage(f"cannot read {uri}: {error}") from error
        return content


def filesystem_of(uri: str) -> tuple[Any, str]:
    """Arrow's file system for a URI, and the part of the URI that it does not take.

    Raises:
        DataError: There is none.
    """
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be opened: {error}") from error
    return filesystem, uri[: uri.index(path)] if path in uri else uri.partition("://")[0] + "://"


class _LocalTable:
    """Images embedded in a table on this machine."""

    def __init__(self, source: str) -> None:
        from mcip.data.columns import standard_rows
        from mcip.data.readers import open_source

        located = locate(source)
        files, root = located.files, located.root
        # The files, and the folders in which another one of them could appear.
        folders = {folder for file in files for folder in file.parents if folder == root or root in folder.parents}
        self.watched = sorted({*files, *(() if local_path(source).is_file() else folders)})
        self.state = [file_state(path) for path in self.watched]
        self.rows = Rows(standard_rows(open_source(source), {}))

    def is_current(self) -> bool:
        """Whether the files are those that were opened."""
        return self.state == [file_state(path) for path in self.watched]

    def __call__(self, number: int) -> bytes:
        """Read the file of an image."""
        return self.rows(number)


class _RemoteTable:
    """Images embedded in a parquet file on object storage, read one row group at a time."""

    def __init__(self, uri: str) -> None:
        import datasets

        from mcip.data.column_names import find_columns
        from mcip.data.schema import Source

        self.uri = uri
        self.filesystem, scheme = filesystem_of(uri)
        self.path = uri.removeprefix(scheme)
        try:
            self.state = self._state()
            self.file = pq.ParquetFile(self.filesystem.open_input_file(self.path))
        except (pa.ArrowException, OSError) as error:
            raise UnreadableImage(f"cannot read {uri}: {error}") from error
        names = Source(datasets.Dataset(self.file.schema_arrow.empty_table()), uri)
        self.column = find_columns(names, {}).get("image", "image")
        self.lock = Lock()
        self.last: tuple[int, pa.ChunkedArray] | None = None

    def is_current(self) -> bool:
        """Whether the object is the one that was opened."""
        try:
            return self.state == self._state()
        except OSError as error:
            raise UnreadableImage(f"cannot read {self.uri}: {error}") from error

    def _state(self) -> object:
        facts = self.filesystem.get_file_info(self.path)
        return facts.size, facts.mtime_ns

    def __call__(self, number: int) -> bytes:
        """Read the file of an image."""
        first = 0
        for group in range(self.file.num_row_groups):
            count = self.file.metadata.row_group(group).num_rows
            if number < first + count:
                cell = self._images(group)[number - first].as_py()
                content: bytes | None = cell["bytes"] if isinstance(cell, dict) else cell
                if content is None:
                    break
                return content
            first += count
        raise UnreadableImage(f"row {number} of {self.uri} is gone")

    def _images(self, group: int) -> pa.ChunkedArray:
        with self.lock:
            if self.last is None or self.last[0] != group:
                try:
                    self.last = group, self.file.read_row_group(group, columns=[self.column])[self.column]
                except (pa.ArrowException, OSError) as error:
                    raise UnreadableImage(f"cannot read {self.uri}: {error}") from error
            return self.last[1]


class _OpenTables:
    """The last few tables that images were read from, opened again when they change."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: OrderedDict[str, _LocalTable | _RemoteTable] = OrderedDict()

    def of(self, source: str) -> _LocalTable | _RemoteTable:
        """The table at a location."""
        with self._lock:
            found = self._open.pop(source, None)
            if found is None or not found.is_current():
                found = _RemoteTable(source) if is_remote(source) else _LocalTable(source)
            self._open[source] = found
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
            return found


_TABLES: Final = _OpenTables()


def _embedded(path: str) -> tuple[str, int | None]:
    """The table and the row of an image that is embedded in one; the path itself and None for others."""
    match = _EMBEDDED.fullmatch(path)
    return (match[1], int(match[2])) if match else (path, None)


def file_state(path: Path) -> tuple[int, int, int, int] | None:
    """What changes when a file does: its size, times in ns, and inode; None where there is no file."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino
