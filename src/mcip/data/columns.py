"""From a source's own columns to the table's: found, typed, filled in and checked, with errors that name the row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mcip.core.errors import DataError
from mcip.data.cache import quiet
from mcip.data.cells import caption_cell, is_list, is_text
from mcip.data.column_names import NAME_THEM, find_columns, quoted
from mcip.data.locate import normal_split, shortened
from mcip.data.numbers import whole_texts
from mcip.data.schema import FEATURES, SOURCE, Source, of_arrow
from mcip.data.text_column import first_repeated, numbered


def standard_rows(source: Source, columns: Mapping[str, str]) -> datasets.Dataset:
    """Make the table's five columns out of a source's, checked, and `source` where there is one.

    Embedded images stay memory-mapped; the other columns are views of the source's where their type is right already.
    """
    found = find_columns(source, columns)
    if len(source.rows) == 0:
        raise DataError(f"{source.name} has no rows")
    if "image" not in found:
        raise DataError(
            f"{source.name} has no column 'image'; its columns are {quoted(source.rows.column_names)}. {NAME_THEM}"
        )
    images, paths = _images(source, found["image"])
    splits = _splits(source, found.get("split"))
    ids = _ids(source, found, paths, splits)
    others = {
        "label": _labels(source, found.get("label")),
        "captions": _captions(source, found),
        "split": splits,
        "id": ids,
    }
    if SOURCE in found and (SOURCE in columns or is_text(arrow_column(source.rows, found[SOURCE]).type)):
        others[SOURCE] = _as_text(source, found[SOURCE], "sources")
    features = datasets.Features({name: FEATURES.get(name, datasets.Value("string")) for name in others})
    made_from = source.rows._fingerprint, sorted(found.items()), source.splits
    rest = of_arrow(pa.table(others).cast(features.arrow_schema), features, made_from)
    return datasets.concatenate_datasets([images, rest], axis=1).select_columns(
        [*FEATURES, *(others.keys() - FEATURES.keys())]
    )


def arrow_column(rows: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """A column as it lies in the memory map, without copying; copied where the rows are a selection."""
    if rows._indices is not None:
        with quiet():
            rows = rows.select_columns(name).flatten_indices(keep_in_memory=True)
    column = rows.data.column(name)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _images(source: Source, name: str) -> tuple[datasets.Dataset, pa.ChunkedArray | None]:
    """The image column as {"bytes", "path"}, and the paths as the source has them where images are files."""
    column = arrow_column(source.rows, name)
    kind = column.type
    embedded = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if embedded:
        content = pc.struct_field(column, "bytes")
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        content, embedded = column, True
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        content = pa.chunked_array([pa.nulls(len(column), pa.binary())])
    else:
        raise DataError(f"{source.name}: the column {name!r} holds {kind}; images are paths, bytes or image columns")
    image = datasets.Image(decode=False)
    if content.null_count == 0:
        rows = _only(source.rows, name)
        rows = rows.rename_column(name, "image") if name != "image" else rows
        return rows.cast_column("image", image), None
    values = column.cast(pa.string()) if not embedded else _field(column, "path", pa.string())
    both = pa.table({"bytes": content.cast(pa.binary()), "path": values})
    paths = _existing_paths(source, both)
    structs = both.set_column(1, "path", paths).to_struct_array()
    features = datasets.Features({"image": image})
    made_from = source.rows._fingerprint, name, source.folder
    files = of_arrow(pa.table({"image": structs}), features, made_from)
    return files, pc.fill_null(values, "") if content.null_count == len(content) else None


def _only(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """One column, still memory-mapped.

    Of rows to which columns were added in memory, `select_columns` leaves blocks without columns, which have no rows
    and cannot be put beside others.
    """
    column = rows.select_columns(name)
    if not isinstance(column.data, datasets.table.ConcatenationTable):
        return column
    blocks = [[block for block in line if block.num_columns] for line in column.data.blocks]
    table = datasets.table.ConcatenationTable.from_blocks(blocks)
    return datasets.Dataset(table, column.info, column.split, column._indices, column._fingerprint)


def _existing_paths(source: Source, images: pa.Table) -> pa.ChunkedArray:
    """Where the images are that are not embedded: URIs as they are given, absolute paths of files, each checked."""
    folder = (source.folder or Path()).absolute()
    checked: list[pa.Array] = []
    gone: list[tuple[int, str, str]] = []
    row = 0
    for part in images.to_batches():
        needed = pc.is_null(part["bytes"])
        uris = pc.fill_null(pc.match_substring(part["path"], "://"), False)
        if pc.all(pc.or_(uris, pc.invert(needed)), min_count=0).as_py():
            checked.append(part["path"])  # as it lies in the memory map
            row += len(part)
            continue
        paths: list[str | None] = []
        for path, need, uri in zip(part["path"].to_pylist(), needed.to_pylist(), uris.to_pylist(), strict=True):
            row += 1
            if need and not path:
                raise DataError(f"row {row} of {source.name}: no image")
            # Unlike their namesakes of Path, these take any text: one too long, or that names an unknown user.
            file = need and not uri
            absolute = os.path.join(folder, os.path.expanduser(path)) if file else path  # noqa: PTH111, PTH118
            if file and not os.path.isfile(absolute):  # noqa: PTH113
                gone.append((row, path, absolute))
            paths.append(absolute)
        checked.append(pa.array(paths, pa.string()))
    if gone:
        row, path, absolute = gone[0]
        path, absolute = shortened(path), shortened(absolute)
        more = f"; nor those of {len(gone) - 1} other rows" if len(gone) > 1 else ""
        raise DataError(f"row {row} of {source.name}: no file {path} (looked for {absolute}){more}")
    return pa.chunked_array(checked, pa.string())


def _labels(source: Source, name: str | None) -> pa.ChunkedArray:
    if name is None:
        return pa.chunked_array([pa.nulls(len(source.rows), pa.string())])
    return _as_text(source, name, "labels")


def _captions(source: Source, found: Mapping[str, str]) -> pa.ChunkedArray:
    name = found.get("captions", found.get("caption"))
    if name is None:
        offsets = pa.array(np.zeros(len(source.rows) + 1, np.int32))
        return pa.chunked_array([pa.ListArray.from_arrays(offsets, pa.array([], pa.string()))])
    column = arrow_column(source.rows, name)
    kind = column.type
    if is_list(kind) and pa.types.is_null(kind.value_type):  # no row has a caption
        column = column.cast(pa.list_(pa.string()))
        kind = column.type
    if is_list(kind) and is_text(kind.value_type):
        if column.null_count == 0 and not _has_blank(pc.list_flatten(column)):
            return column.cast(pa.list_(pa.string()))
        lists = column.to_pylist()
    elif is_text(kind) or pa.types.is_null(kind):
        cells = enumerate(column.to_pylist(), start=1)
        lists = [caption_cell(cell, f"row {row} of {source.name}") for row, cell in cells]
    else:
        raise DataError(f"{source.name}: the column {name!r} holds {kind}; captions are a list of texts, or one text")
    cleaned = [[text for text in cell or [] if text and text.strip()] for cell in lists]
    return pa.chunked_array([pa.array(cleaned, pa.list_(pa.string()))])


def _splits(source: Source, name: str | None) -> pa.ChunkedArray:
    if name is None:
        runs = source.splits or (("train", len(source.rows)),)
        return pa.chunked_array([pa.repeat(pa.scalar(split, pa.string()), count) for split, count in runs])
    names = _as_text(source, name, "splits")
    if names.null_count:
        row = pc.index(pc.is_null(names), True).as_py() + 1
        raise DataError(f"row {row} of {source.name}: no split; name one, such as train, or leave the column out")
    spelled = pc.unique(names)
    return pc.take(pa.array(map(normal_split, spelled.to_pylist()), pa.string()), pc.index_in(names, spelled))


def _ids(source: Source, found: Mapping[str, str], paths: pa.ChunkedArray | None, splits: pa.ChunkedArray) -> Any:
    if "id" in found:
        ids = _as_text(source, found["id"], "ids")
        if ids.null_count:
            row = pc.index(pc.is_null(ids), True).as_py() + 1
            raise DataError(f"row {row} of {source.name}: no id; give every row one, or leave the column out")
        advice = "ids must differ"
    elif paths is not None:
        ids, advice = paths, "put all captions of an image into one row, or give the rows a column id"
    else:
        return _numbered_within(splits)
    if (rows := first_repeated(ids)) is not None:
        earlier, row = rows
        identity = ids[row].as_py()
        raise DataError(f"rows {earlier + 1} and {row + 1} of {source.name} have the same id {identity!r}: {advice}")
    return ids


def _numbered_within(splits: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids such as train/0, train/1, test/0."""
    names, numbers = numbered(splits)
    places = np.empty(len(numbers), np.int64)
    for number in range(len(names)):
        rows = np.flatnonzero(numbers == number)
        places[rows] = np.arange(len(rows))
    return pc.binary_join_element_wise(splits, pa.chunked_array([places]).cast(pa.string()), "/")


def _as_text(source: Source, name: str, what: str) -> pa.ChunkedArray:
    """A column of texts, whole numbers or class labels as texts; empty texts become null."""
    feature = source.rows.features[name]
    column = arrow_column(source.rows, name)
    kind = column.type
    if isinstance(feature, datasets.ClassLabel):
        names = [None if value is None or value < 0 else feature.int2str(value) for value in column.to_pylist()]
        return _text(names)
    if pa.types.is_floating(kind) and (whole := whole_texts(column)) is not None:
        return whole
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"{source.name}: the column {name!r} holds {kind}; {what} are texts or whole numbers")
    texts = column.cast(pa.string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts) if _has_empty(texts) else texts


def _field(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type.get_field_index(name) < 0:
        return pa.chunked_array([pa.nulls(len(column), kind)])
    return pc.struct_field(column, name).cast(kind)


def _text(values: Iterable[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values), pa.string())])


def _has_empty(texts: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.equal(texts, "")).as_py())


def _has_blank(texts: pa.ChunkedArray) -> bool:
    return texts.null_count > 0 or bool(pc.any(pc.equal(pc.utf8_trim_whitespace(texts), "")).as_py())
