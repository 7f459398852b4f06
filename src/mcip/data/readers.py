"""Readers: from a folder, CSV, parquet, tars or the hub to rows as the source has them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa

from mcip.core.errors import DataError
from mcip.core.hashes import cache_root, file_state
from mcip.data.cache import folder_of, quiet, stored
from mcip.data.csv_file import csv_rows
from mcip.data.locate import HUB, SPLITS, Located, locate, normal_split, split_of
from mcip.data.parquet import Shard, parquet_counts, parquet_rows
from mcip.data.schema import FEATURES, Source, of_arrow
from mcip.data.tars import tar_rows

_LINES_AT_ONCE: Final = 50_000


def open_source(source: str | os.PathLike[str]) -> Source:
    """Open a source for `read_table`, with the reader of its kind."""
    located = locate(source)
    if located.kind == "hub":
        found = open_splits(hub_rows(str(source)), str(source))
        return replace(found, cache=_cache_of_files(found.rows))
    found = _remote(located, str(source)) if located.kind == "remote" else _READERS[located.kind](located)
    return replace(found, skipped=dict(Counter(located.skipped) + Counter(found.skipped)))


def open_splits(parts: datasets.DatasetDict, name: str) -> Source:
    """The rows of all splits, one after another."""
    if not parts:
        raise DataError(f"{name} has no splits")
    rows = datasets.concatenate_datasets([parts[split] for split in parts])
    splits = tuple((normal_split(str(split)), len(parts[split])) for split in parts)
    return Source(rows, name, None, splits)


def text_rows(files: list[Path]) -> datasets.Dataset:
    """Read text files, one row per line, as the column `text`, memory-mapped."""
    features = datasets.Features({"text": datasets.Value("string")})

    def tables() -> Iterator[pa.Table]:
        for file in files:
            try:
                with file.open(encoding="utf-8-sig") as lines:
                    while part := [line.rstrip("\n") for line in islice(lines, _LINES_AT_ONCE)]:
                        yield pa.table({"text": part}, features.arrow_schema)
            except (UnicodeDecodeError, OSError) as error:
                raise DataError(f"cannot read {file} as UTF-8 text: {error}") from error

    return stored(tables, features, files, "text", "holds no captions: the pool is empty")


def hub_rows(name: str) -> datasets.DatasetDict:
    """Load all splits of a data set of the hub: "owner/name" or "owner/name:configuration", with or without "hub:"."""
    repository, _, configuration = name.removeprefix(HUB).partition(":")
    with quiet():
        try:
            loaded = datasets.load_dataset(repository, configuration or None)
        except Exception as error:
            raise DataError(
                f"{name} is no file or folder here, and loading it as a data set of the hub failed: "
                f"{str(error).rstrip('.')}. Check the name; a data set of the hub needs a network at its first use"
            ) from error
    if not isinstance(loaded, datasets.DatasetDict):
        raise DataError(f"{name}: the hub gave a {type(loaded).__name__}, not a data set with splits")
    return loaded


def _class_folders(located: Located) -> Source:
    root = located.root
    relative = [file.relative_to(root) for file in located.files]
    split_folders = _split_folders(relative)
    paths, labels, splits, ids = list[str](), list[str | None](), list[str](), list[str]()
    above = str(root.absolute())
    beside = 0
    for path in relative:
        if split_folders and (len(path.parts) == 1 or path.parts[0] not in split_folders):
            beside += 1
            continue
        folders = path.parts[1:-1] if split_folders else path.parts[:-1]
        paths.append(os.path.join(above, path))  # noqa: PTH118 - many paths
        labels.append("/".join(folders) or None)
        splits.append(normal_split(path.parts[0]) if split_folders else "train")
        ids.append(path.as_posix())
    images = pa.StructArray.from_arrays([pa.nulls(len(ids), pa.binary()), pa.array(paths)], names=["bytes", "path"])
    columns = [images, pa.array(labels, pa.string()), [[] for _ in ids], splits, ids]
    table = pa.table(dict(zip(FEATURES, columns, strict=True)), FEATURES.arrow_schema)
    skipped = {f"images beside {', '.join(sorted(split_folders))}": beside} if beside else {}
    return Source(of_arrow(table, FEATURES, above, ids, splits), str(root), root, skipped=skipped)


def _split_folders(images: list[Path]) -> set[str]:
    """The folders that are splits rather than classes; images beside them belong to no split.

    They are where every folder is named as a split, where two different splits are there, or where most images lie in
    class folders below one that is named as a split.
    """
    below = [path for path in images if len(path.parts) > 1]
    folders = {path.parts[0] for path in below}
    named = {folder for folder in folders if folder.lower() in SPLITS}
    if named == folders or len({normal_split(folder) for folder in named}) > 1:
        return named
    inside = [path for path in below if path.parts[0] in named]
    nested = bool(inside) and all(len(path.parts) > 2 for path in inside)
    flat = all(len(path.parts) == 2 for path in below if path.parts[0] not in named)
    return named if nested and flat and 2 * len(inside) > len(images) else set()


def _csv(located: Located) -> Source:
    files = located.files
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise DataError(f"{located.root} holds {len(files)} CSV files ({names}): give the path of the one you mean")
    rows = csv_rows(files[0])
    splits = ((split_of(files[0], located.root), len(rows)),)
    return Source(rows, files[0].name, files[0].parent, splits, typed=False)


def _parquet(located: Located) -> Source:
    splits = [split_of(file, located.root) for file in located.files]
    return _shards(located.files, splits, _name(located), located.root)


def _remote(located: Located, name: str) -> Source:
    return _shards(located.remote, [split_of(Path(file.name), Path()) for file in located.remote], name, None)


def _shards(files: list[Shard] | Any, splits: list[str], name: str, folder: Path | None) -> Source:
    rows = parquet_rows(files)
    runs = tuple(zip(splits, parquet_counts(files), strict=True))
    return Source(rows, name, folder, runs, folder_of(rows))


def _tars(located: Located) -> Source:
    rows = tar_rows(located.files, located.root)
    return Source(rows, _name(located), located.root, cache=folder_of(rows))


def _text(located: Located) -> Source:
    raise DataError(f"{_name(located)} is text: it can be a pool of captions, but not a table of images")


def _name(located: Located) -> str:
    return located.files[0].name if len(located.files) == 1 else str(located.root)


def _cache_of_files(rows: datasets.Dataset) -> Path | None:
    """A cache folder for what is found out about memory-mapped rows; it belongs to the present state of their files."""
    states = [file_state(file["filename"]) for file in rows.cache_files]
    if not states or rows._indices is not None:
        return None
    return cache_root() / "hub" / hashlib.sha256(repr((states, len(rows))).encode()).hexdigest()[:32]


_READERS: Final = {"images": _class_folders, "csv": _csv, "parquet": _parquet, "tar": _tars, "text": _text}
