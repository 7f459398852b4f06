"""What there is to index: the images of folders, tables, tars or object storage, listed, not yet read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from mcip.core.errors import ConfigError, DataError
from mcip.data.column_names import columns_of, find_columns
from mcip.data.columns import arrow_column, standard_rows
from mcip.data.locate import locate
from mcip.data.objects import open_object
from mcip.data.readers import open_source
from mcip.data.schema import Source
from mcip.data.table import Table, read_table
from mcip.data.walk import is_hidden
from mcip.retrieval.folder import Files, is_image_name, list_folder, summary, why_closed, why_skipped, without_raw_pairs
from mcip.retrieval.location import check_utf8, is_remote, resolve
from mcip.retrieval.metadata import file_columns, useful_columns
from mcip.retrieval.reading import Content, LocalFiles, Objects, Rows, file_state, filesystem_of, read_image

if TYPE_CHECKING:
    import pandas as pd

DataLike: TypeAlias = "str | os.PathLike[str] | Table | datasets.Dataset | pd.DataFrame"

__all__ = ["FOLDERS", "DataLike", "Listing", "list_images", "read_image"]

_TABLES: Final = (".parquet", ".pq")
# Kinds of sources whose ids are paths of files.
FOLDERS: Final = frozenset(("images", "objects"))


@dataclass(frozen=True)
class Listing:
    """Images by number: who they are, and how to tell whether they have changed.

    Attributes:
        name: What messages call the source.
        kind: What the source is: "images" or "objects" if files, "parquet", "csv", "tar", "hub" or "memory" if a table.
        location: Where it is, resolved: two spellings of one place are equal.
        ids: Unique; the path below the folder or prefix, or the table's id.
        paths: Where `read_image` finds each of them.
        stamps: Change when the file or its metadata do, but not when it is moved with its folder.
        metadata: The source's other columns, one row per image.
        content: Reads an image's file.
        skipped: Files that are left out, with the reason.
        closed: Folders that cannot be listed and files that cannot be read now, with the reason: what was indexed of
            them is kept.
        superseded: Those of `skipped` that another image stands for.
    """

    name: str
    kind: str
    location: str
    ids: list[str]
    paths: list[str]
    stamps: list[str]
    metadata: pa.Table
    content: Content
    skipped: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    superseded: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)


def list_images(source: DataLike, columns: str = "", raw_pairs: bool = False) -> Listing:
    """List the images of a source, without decoding them.

    Args:
        source: A folder, searched to its depths; what `mcip.read_table` takes; or a URI such as "s3://bucket/photos" or
            "s3://bucket/table.parquet".
        columns: Which columns of a table are image, id, label, ..., see `mcip.read_table`; empty where it says itself.
        raw_pairs: Whether to list camera RAW beside a JPEG or HEIC of the same name too.

    Raises:
        DataError: There is no such source, or no image in it.
        ConfigError: `columns` is given for files, which have none.
    """
    named = columns_of(columns or None)
    if not isinstance(source, str | os.PathLike):
        return _objects_in_memory(source, named)
    location = resolve(source)
    check_utf8(location)
    if is_remote(location):
        return _remote(location, named, raw_pairs)
    if not os.path.isdir(location):  # noqa: PTH112 - False for a path that no file can have
        return _table(location, named)
    files = list_folder(Path(location))
    if not files.images and not files.tables:
        raise DataError(_no_images(location, files))
    if not files.images or (files.tables and locate(location).kind != "images"):
        return _table(location, named)
    _check_no_columns(location, named)
    pairs: dict[str, str] = {}
    if not raw_pairs:
        images, pairs, closed = without_raw_pairs(files.images, files.closed)
        files = replace(files, images=images, closed=closed)
    skipped = dict.fromkeys(files.tables, "a table beside images") | files.skipped | pairs
    return replace(_folder(location, replace(files, skipped=skipped)), superseded=frozenset(pairs))


def _folder(location: str, files: Files) -> Listing:
    ids = list(files.images)
    paths = [str(Path(location, name)) for name in ids]
    stamps = [
        _stamp(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino) for facts in files.images.values()
    ]
    return Listing(
        location,
        "images",
        location,
        ids,
        paths,
        stamps,
        file_columns(ids),
        LocalFiles(paths),
        files.skipped,
        files.closed,
    )


def _no_images(location: str, files: Files) -> str:
    if left_out := files.skipped | files.closed:
        name, why = next(iter((files.closed or left_out).items()))
        return (
            f"{location}: no images: none of its {len(left_out):,} files is one ({summary(left_out)}); "
            f"{name or location}: {why}."
        )
    return f"{location}: no images: it is empty. If a disk or a bucket should be mounted there, mount it."


def _table(location: str, columns: Mapping[str, str]) -> Listing:
    try:
        kind = locate(location).kind
    except OSError as error:
        raise DataError(f"{location[:200]} cannot be opened: {error.strerror or error}") from error
    if kind == "images":
        raise DataError(f"{location} is one image: give its folder.")
    opened = open_source(location)
    return _rows_of(opened, columns, kind, location)


def _objects_in_memory(source: Any, columns: Mapping[str, str]) -> Listing:
    """The listing of a table, a data set or a data frame; images that are not files can be found but not shown."""
    if isinstance(source, Table):
        table = read_table(source, columns=columns)
        return _rows_of(Source(table.rows, table.name), {}, "memory", f"memory:{source.name}")
    opened = open_object(source)
    return _rows_of(opened, columns, "memory", f"memory:{opened.name}")


def _rows_of(opened: Source, named: Mapping[str, str], kind: str, location: str) -> Listing:
    """The listing of a source's rows."""
    rows = standard_rows(opened, named)
    taken = set(find_columns(opened, named).values())
    columns = {name: arrow_column(rows, name) for name in ("label", "captions", "split")}
    columns |= {name: arrow_column(opened.rows, name) for name in opened.rows.column_names if name not in taken}
    metadata = useful_columns(columns, opened.rows.features, kind == "csv")
    paths, stamps = [], []
    for number, (image, facts) in enumerate(zip(_images(rows), _digests(metadata), strict=True)):
        path, fingerprint = image
        embedded = "" if kind == "memory" else f"{location}#{number}"
        paths.append(embedded if path is None else path)
        stamps.append(_stamp(fingerprint, facts))
    return Listing(opened.name, kind, location, list(rows["id"][:]), paths, stamps, metadata, Rows(rows))


def _images(rows: datasets.Dataset) -> list[tuple[str | None, object]]:
    """Of each row the path of its file, or None where it is embedded, and what changes when the image does."""
    found: list[tuple[str | None, object]] = []
    for batch in rows.select_columns("image").with_format("arrow").iter(1000):
        images = batch["image"].combine_chunks()
        for content, path in zip(images.field("bytes"), images.field("path"), strict=True):
            if content.is_valid:
                found.append((None, hashlib.sha256(content.as_buffer()).hexdigest()))
            elif "://" in (name := path.as_py()):
                found.append((name, name))  # an object, known by its URI
            else:
                file = Path(name)
                found.append((str(file.absolute()), file_state(file)))
    return found


def _digests(metadata: pa.Table) -> list[str]:
    """A short hash of each row."""
    if metadata.num_columns == 0:
        return [""] * metadata.num_rows
    return [hashlib.blake2b(repr(row).encode(), digest_size=8).hexdigest() for row in metadata.to_pylist()]


def _stamp(*facts: object) -> str:
    return hashlib.blake2b(repr([str(fact) for fact in facts]).encode(), digest_size=12).hexdigest()


def _remote(uri: str, columns: Mapping[str, str], raw_pairs: bool) -> Listing:
    if PurePosixPath(uri).suffix.lower() in _TABLES:
        return _remote_table(uri, columns)
    _check_no_columns(uri, columns)
    filesystem, scheme = filesystem_of(uri)
    prefix = uri.removeprefix(scheme).rstrip("/")
    try:
        found = filesystem.get_file_info(fs.FileSelector(prefix, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be listed: {error}") from error
    objects = {
        facts.path.removeprefix(prefix).lstrip("/"): facts
        for facts in sorted(found, key=lambda facts: str(facts.path))
        if facts.type == fs.FileType.File
    }
    shown = {name: facts for name, facts in objects.items() if not any(map(is_hidden, name.split("/")))}
    closed = {name: why for name, facts in shown.items() if (why := why_closed(name, facts.size))}
    images = {name: facts for name, facts in shown.items() if is_image_name(name) and name not in closed}
    skipped = {name: why_skipped(name) for name in shown.keys() - images.keys() - closed.keys()}
    if not images:
        raise DataError(f"{uri}: no images: none of its {len(objects):,} objects has the suffix of one and a content.")
    pairs: dict[str, str] = {}
    if not raw_pairs:
        images, pairs, closed = without_raw_pairs(images, closed)
    ids = list(images)
    uris = [scheme + facts.path for facts in images.values()]
    stamps = [_stamp(facts.size, facts.mtime_ns) for facts in images.values()]
    content, superseded = Objects(filesystem, scheme, uris), frozenset(pairs)
    return Listing(
        uri, "objects", uri, ids, uris, stamps, file_columns(ids), content, skipped | pairs, closed, superseded
    )


def _remote_table(uri: str, columns: Mapping[str, str]) -> Listing:
    filesystem, scheme = filesystem_of(uri)
    try:
        found = pq.read_table(uri.removeprefix(scheme), filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be read: {error}") from error
    opened = Source(datasets.Dataset(found), uri)
    return _rows_of(opened, columns, "parquet", uri)


def _check_no_columns(location: str, columns: Mapping[str, str]) -> None:
    if columns:
        raise ConfigError(f"{location} holds files, which have no columns: leave --columns out, or index a table.")
