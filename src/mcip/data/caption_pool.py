"""A pool of captions as one memory-mapped column of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mcip.core.errors import DataError
from mcip.data.cache import generated
from mcip.data.cells import caption_cell, is_list, is_text
from mcip.data.column_names import nearest, quoted
from mcip.data.columns import arrow_column
from mcip.data.csv_file import csv_rows
from mcip.data.locate import locate
from mcip.data.objects import open_object
from mcip.data.parquet import column_names, parquet_rows
from mcip.data.readers import hub_rows, text_rows
from mcip.data.schema import folded, of_arrow
from mcip.data.table import Table, TableData
from mcip.data.tars import tar_captions

_FEATURES = datasets.Features({"caption": datasets.Value("string")})


def read_captions(data: TableData, column: str | None = None) -> datasets.Dataset:
    """Read a pool of captions as one memory-mapped column `caption`, which may be larger than memory.

    Args:
        data: A .txt file (one caption per line), a .csv, .parquet or .tar file or a folder or glob of them, a data set
            of the hub, a table, a `datasets.Dataset` or `DatasetDict`, or a pandas frame. Captions are the column
            `caption` (text) or `captions` (lists).
        column: Another name of that column.

    Returns:
        A data set with the column `caption` (string); blank captions are left out, duplicates are kept.

    Raises:
        DataError: There is no such column, or no caption in it.
    """
    if isinstance(data, Table):
        return _collect(data.rows.select_columns("captions"), data.name, None)
    if isinstance(data, str | os.PathLike):
        return _collect(data, str(data), column)
    source = open_object(data)
    return _collect(source.rows, source.name, column)


def _collect(source: str | os.PathLike[str] | datasets.Dataset, name: str, column: str | None) -> datasets.Dataset:
    """The captions of a source as the column `caption`."""
    rows = source if isinstance(source, datasets.Dataset) else _open(source, column)
    found = _column(rows.column_names, name, column)
    captions = _flat(arrow_column(rows, found), name, found)
    pool = of_arrow(pa.table({"caption": captions}), _FEATURES, rows._fingerprint, found)
    kept = _not_blank(captions)
    if kept is not None:
        pool = pool.select(kept, keep_in_memory=True)
    if len(pool) == 0:
        raise DataError(f"{name} holds no captions: the pool is empty")
    return pool


def _open(source: str | os.PathLike[str], column: str | None) -> datasets.Dataset:
    located = locate(source)
    kind, files = located.kind, located.files
    if kind == "text":
        return text_rows(files).rename_column("text", "caption")
    if kind == "csv":
        return datasets.concatenate_datasets([_csv(file, column) for file in files])
    if kind in ("parquet", "remote"):
        shards = files or located.remote
        present = dict.fromkeys(name for shard in shards for name in column_names(shard))
        return parquet_rows(shards, [_column(present, str(source), column)])
    if kind == "tar":
        return tar_captions(files)
    if kind == "hub":
        parts = hub_rows(str(source))
        return datasets.concatenate_datasets(
            [part.select_columns(_column(part.column_names, str(source), column)) for part in parts.values()]
        )
    raise DataError(
        f"{located.root} is a folder of images without captions; a pool is a .txt, .csv, .parquet or .tar file"
    )


def _csv(file: Path, column: str | None) -> datasets.Dataset:
    rows = csv_rows(file)
    name = _column(rows.column_names, file.name, column)
    texts = rows.select_columns(name)
    if not pc.any(pc.match_substring_regex(arrow_column(texts, name), r"^\s*[\[{]")).as_py():
        return texts

    def generate() -> Iterator[dict[str, str]]:
        for number, row in enumerate(texts, start=1):
            for caption in caption_cell(row[name], f"row {number} of {file.name}"):
                yield {name: caption}

    return generated(generate, texts.features, [file], f"captions {name}")


def _column(present: Iterable[str], source: str, column: str | None) -> str:
    known = list(present)
    if column is not None and column not in known:
        raise DataError(f"{source} has no column {column!r}{nearest(column, known)}; its columns are {quoted(known)}")
    by_folded = {folded(name): name for name in known}
    names = (column,) if column is not None else ("caption", "captions")
    found = next(
        (name if name in known else by_folded[name] for name in names if name in known or name in by_folded), None
    )
    if found is None:
        raise DataError(
            f"{source} has no column 'caption' or 'captions'; name the one that holds them, as "
            f"in --columns caption=title (mcip mine: --pool-columns); its columns are {quoted(known)}"
        )
    return found


def _flat(column: pa.ChunkedArray, source: str, name: str) -> pa.ChunkedArray:
    """The texts of a column of texts or of lists of texts, without copying them."""
    if is_list(column.type):
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not is_text(column.type):
        raise DataError(f"{source}: the column {name!r} holds {column.type}; captions are texts or lists of texts")
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _not_blank(captions: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """The numbers of the captions that are not blank; None where none is blank."""
    masks = []
    for chunk in captions.chunks:
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(chunk), ""), True)
        masks.append(blank.to_numpy(zero_copy_only=False))
    blanks = np.concatenate(masks) if masks else np.zeros(0, dtype=bool)
    return np.flatnonzero(~blanks) if blanks.any() else None
