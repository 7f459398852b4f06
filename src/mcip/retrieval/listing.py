"""What there is to index: the pictures of a folder, of a table, of tars or of object storage, listed, not yet read."""

from __future__ import annotations

import glob
import hashlib
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from mcip.core.errors import DataError, UnreadableImage
from mcip.data.column_names import find_columns
from mcip.data.columns import arrow_column, standard_rows
from mcip.data.images import IMAGE_SUFFIXES
from mcip.data.locate import locate
from mcip.data.readers import open_source
from mcip.data.schema import Source
from mcip.retrieval.table import OWN

# Reads the file of a picture by its number; raises UnreadableImage.
Content: TypeAlias = Callable[[int], bytes]

_TABLES = (".parquet", ".pq")
_LEADING_ZERO = r"^[-+]?0\d"
_EMBEDDED = re.compile(r"(.+)#(\d+)")


@dataclass(frozen=True)
class Listing:
    """Pictures by number: who they are, and how to tell whether they have changed.

    Attributes:
        name: What messages call the source.
        ids: Unique; the path below the folder or prefix, or the table's id.
        paths: Where `read_image` finds each of them.
        stamps: Change when the file (its size or time of change), its place or its metadata do.
        metadata: The source's other columns, a row a picture.
        content: Reads a picture's file.
    """

    name: str
    ids: list[str]
    paths: list[str]
    stamps: list[str]
    metadata: pa.Table
    content: Content

    def __len__(self) -> int:
        return len(self.ids)


def list_images(source: str) -> Listing:
    """List the pictures of a source, without decoding them.

    Args:
        source: A folder, searched to its depths; what `mcip.read_table` takes; or a URI such as "s3://bucket/photos" or
            "s3://bucket/table.parquet".

    Raises:
        DataError: There is no such source, or no picture in it.
    """
    if "://" in source:
        return _remote(source)
    located = locate(source)
    return _folder(located.files, located.root) if located.kind == "images" else _table(source)


def read_image(path: str) -> bytes:
    """The file of an indexed picture, by the path that stands in the table.

    Raises:
        UnreadableImage: It is gone.
    """
    if "://" in path:
        uri, row = _embedded(path)
        return _Objects(*_filesystem(path), [])(path) if row is None else _remote_table(uri).content(row)
    file = Path(path)
    uri, row = _embedded(path)
    if row is None or file.is_file():
        return _read_file(file)
    try:
        return _open_table(uri)[row]
    except (DataError, IndexError) as error:
        raise UnreadableImage(f"row {row} of {uri} is gone: {error}") from error


class _Files:
    """Files of this machine."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __call__(self, number: int) -> bytes:
        return _read_file(Path(self.paths[number]))


class _Rows:
    """Images of a table: embedded, or files that it names."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows.select_columns("image")

    def __call__(self, number: int) -> bytes:
        image = self.rows[number]["image"]
        return image["bytes"] if image["bytes"] is not None else _read_file(Path(image["path"]))

    def __getitem__(self, number: int) -> bytes:
        return self(number)


class _Objects:
    """Objects of a file system of Arrow's, by URI."""

    def __init__(self, filesystem: Any, scheme: str, uris: Sequence[str]) -> None:
        self.filesystem = filesystem
        self.scheme = scheme
        self.uris = uris

    def __call__(self, number: int | str) -> bytes:
        uri = number if isinstance(number, str) else self.uris[number]
        try:
            with self.filesystem.open_input_stream(uri.removeprefix(self.scheme)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            raise UnreadableImage(f"no object {uri}") from None
        except OSError as error:
            raise UnreadableImage(f"cannot read {uri}: {error}") from error
        return content


def _read_file(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            # Reading a pipe or a device would not end.
            raise UnreadableImage(f"{file} is no regular file")
        return file.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(f"no file {file}") from None
    except OSError as error:
        raise UnreadableImage(f"cannot read {file}: {error.strerror or error}") from error


def _folder(files: list[Path], root: Path) -> Listing:
    ids, stamps = [], []
    for file in files:
        facts = file.stat()
        ids.append(file.relative_to(root).as_posix())
        stamps.append(_stamp(file.absolute(), facts.st_size, facts.st_mtime_ns))
    paths = [str(file.absolute()) for file in files]
    folders = pa.table({"folder": [str(PurePosixPath(name).parent) for name in ids]})
    return Listing(str(root), ids, paths, stamps, folders, _Files(paths))


def _table(source: str) -> Listing:
    place = str(Path(source).absolute()) if Path(source).exists() or glob.has_magic(source) else source
    return _listing(open_source(source), place)


def _listing(opened: Source, place: str) -> Listing:
    rows = standard_rows(opened, {})
    taken = set(find_columns(opened, {}).values())
    columns = {name: arrow_column(rows, name) for name in ("label", "captions", "split")}
    columns |= {name: arrow_column(opened.rows, name) for name in opened.rows.column_names if name not in taken}
    metadata = _useful(columns, opened.rows.features)
    paths, stamps = [], []
    for number, (picture, facts) in enumerate(zip(_pictures(rows), _digests(metadata), strict=True)):
        path, fingerprint = picture
        paths.append(path if path is not None else f"{place}#{number}")
        stamps.append(_stamp(paths[-1], fingerprint, facts))
    return Listing(opened.name, list(rows["id"][:]), paths, stamps, metadata, _Rows(rows))


def _pictures(rows: datasets.Dataset) -> list[tuple[str | None, object]]:
    """Of each row the path of its file, or None where it is embedded, and what changes when the picture does."""
    found: list[tuple[str | None, object]] = []
    for batch in rows.select_columns("image").with_format("arrow").iter(1000):
        images = batch["image"].combine_chunks()
        for content, path in zip(images.field("bytes"), images.field("path"), strict=True):
            if content.is_valid:
                found.append((None, hashlib.sha256(content.as_buffer()).hexdigest()))
                continue
            file = Path(path.as_py())
            try:
                facts = file.stat()
                found.append((str(file.absolute()), (facts.st_size, facts.st_mtime_ns)))
            except OSError:
                found.append((str(file.absolute()), None))
    return found


def _useful(columns: dict[str, pa.ChunkedArray], features: datasets.Features) -> pa.Table:
    """The columns that can be filtered by or shown: no pictures, no bytes, none that says nothing; numbers as such."""
    kept = {}
    for name, column in columns.items():
        kind = column.type
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)
        if (
            binary
            or isinstance(features.get(name), datasets.Image | datasets.Audio)
            or column.null_count == len(column)
        ):
            continue
        if isinstance(features.get(name), datasets.ClassLabel):
            names = features[name].names
            column = pa.chunked_array([[None if at is None or at < 0 else names[at] for at in column.to_pylist()]])
        kept[f"source_{name}" if name in OWN else name] = _as_numbers(column)
    # The columns come from several tables, in chunks of their own.
    return pa.table({name: pa.array(column.to_pylist(), column.type) for name, column in kept.items()})


def _as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts that are all numbers, as CSV has them, as numbers; numbers with leading zeros are texts."""
    if not pa.types.is_string(column.type) or pc.any(pc.match_substring_regex(column, _LEADING_ZERO)).as_py():
        return column
    for kind in (pa.int64(), pa.float64()):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _digests(metadata: pa.Table) -> list[str]:
    """A short hash of each row."""
    if metadata.num_columns == 0:
        return [""] * metadata.num_rows
    return [hashlib.blake2b(repr(row).encode(), digest_size=8).hexdigest() for row in metadata.to_pylist()]


def _stamp(*facts: object) -> str:
    return hashlib.blake2b(repr([str(fact) for fact in facts]).encode(), digest_size=12).hexdigest()


def _embedded(path: str) -> tuple[str, int | None]:
    """The table and the row of a picture that is embedded in one; the path itself and None for others."""
    match = _EMBEDDED.fullmatch(path)
    return (match[1], int(match[2])) if match else (path, None)


@lru_cache(maxsize=4)
def _open_table(source: str) -> _Rows:
    return _Rows(standard_rows(open_source(source), {}))


def _filesystem(uri: str) -> tuple[Any, str]:
    """Arrow's file system for a URI, and the part of the URI that it does not take."""
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be opened: {error}") from error
    return filesystem, uri[: uri.index(path)] if path in uri else uri.partition("://")[0] + "://"


def _remote(uri: str) -> Listing:
    if PurePosixPath(uri).suffix.lower() in _TABLES:
        return _remote_table(uri)
    filesystem, scheme = _filesystem(uri)
    prefix = uri.removeprefix(scheme).rstrip("/")
    try:
        found = filesystem.get_file_info(fs.FileSelector(prefix, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be listed: {error}") from error
    files = [
        facts
        for facts in sorted(found, key=lambda facts: str(facts.path))
        if facts.type == fs.FileType.File and PurePosixPath(facts.path).suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(f"{uri}: no images: none of its {len(found)} objects has the suffix of one.")
    ids = [facts.path.removeprefix(prefix).lstrip("/") for facts in files]
    uris = [scheme + facts.path for facts in files]
    stamps = [_stamp(name, facts.size, facts.mtime_ns) for name, facts in zip(uris, files, strict=True)]
    folders = pa.table({"folder": [str(PurePosixPath(name).parent) for name in ids]})
    return Listing(uri, ids, uris, stamps, folders, _Objects(filesystem, scheme, uris))


@lru_cache(maxsize=4)
def _remote_table(uri: str) -> Listing:
    filesystem, scheme = _filesystem(uri)
    try:
        found = pq.read_table(uri.removeprefix(scheme), filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be read: {error}") from error
    return _listing(Source(datasets.Dataset(found), uri), uri)
