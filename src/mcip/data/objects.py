"""Tables from objects in memory: data sets of `datasets`, and pandas frames."""

from __future__ import annotations

import io
import os
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
from PIL import Image

from mcip.core.errors import DataError
from mcip.data.readers import open_splits
from mcip.data.schema import NAMES, Source, folded

# The modes that PNG keeps; images of other modes are kept as TIFF.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# From here on whole numbers do not fit into 64 bits.
_LARGE = 2**63


def open_object(data: object) -> Source:
    """Rows of a data set or a frame, as `mcip.data.read_table` takes them.

    Raises:
        DataError: It is something else, or a column of a frame cannot be read.
    """
    if isinstance(data, datasets.DatasetDict):
        return open_splits(datasets.DatasetDict({name: _plain(part) for name, part in data.items()}), "the data set")
    if isinstance(data, datasets.Dataset):
        return Source(_plain(data), "the data set")
    if isinstance(data, pd.DataFrame):
        return Source(_frame_rows(data), "the frame")
    raise DataError(
        f"a table cannot be read from a {type(data).__module__}.{type(data).__qualname__}: give a path, a name, a "
        "mcip.Table, a datasets.Dataset or DatasetDict, or a pandas frame"
    )


def _plain(rows: datasets.Dataset) -> datasets.Dataset:
    return rows.with_format(None)


def _frame_rows(frame: pd.DataFrame) -> datasets.Dataset:
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise DataError(f"the frame has a column twice; its columns are {', '.join(map(repr, names))}")
    columns: dict[str, pa.Array] = {}
    for name, series in zip(names, (frame.iloc[:, number] for number in range(len(names))), strict=True):
        cells = [_cell(value) for value in series] if series.dtype == object else series
        try:
            column = pa.array(_images(cells) if _holds_images(cells) else _whole_numbers(cells), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            if folded(name) in NAMES:
                raise DataError(
                    f"the frame's column {name!r} cannot be read ({error}): its values must be of one type, and images "
                    "are paths, bytes or PIL images"
                ) from error
            continue  # a column that no table reads
        columns[name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return datasets.Dataset(pa.table(columns))


def _cell(value: Any) -> Any:
    """A value as Arrow takes it: the file of an image, a path as text."""
    if isinstance(value, Image.Image):
        return {"bytes": _file_of(value), "path": None}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value), "path": None}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _holds_images(cells: Any) -> bool:
    return isinstance(cells, list) and any(isinstance(cell, dict) and "bytes" in cell for cell in cells)


def _images(cells: list[Any]) -> list[Any]:
    """Images of which some are bytes: paths beside them as {"bytes", "path"} too."""
    return [{"bytes": None, "path": cell} if isinstance(cell, str) else cell for cell in cells]


def _whole_numbers(cells: Any) -> Any:
    """Whole numbers of which one has more than 64 bits: all of them as texts, digit by digit."""
    if not isinstance(cells, list) or not any(type(cell) is int and abs(cell) >= _LARGE for cell in cells):
        return cells
    return [str(cell) if type(cell) is int else cell for cell in cells]


def _file_of(image: Image.Image) -> bytes:
    """An image as a file without loss, with its orientation."""
    stream = io.BytesIO()
    image.save(stream, "PNG" if image.mode in _PNG_MODES else "TIFF", exif=image.getexif())
    return stream.getvalue()
