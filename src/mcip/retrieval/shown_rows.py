"""The columns that results show, in memory: every query reads a few rows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Returns the values of a column at these positions.
_Read: TypeAlias = Callable[[NDArray[np.int64]], list[Any]]


class ShownRows:
    """Rows of a table.

    Attributes:
        table: The rows, of one chunk where they have less than 2 GB.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table: pa.Table = table.combine_chunks()
        self._read = {name: _reader(self.table[name]) for name in table.column_names}

    def columns(self, positions: NDArray[np.int64]) -> dict[str, list[Any]]:
        """The values of each column in the rows at these positions (n,)."""
        return {name: read(positions) for name, read in self._read.items()}

    def position(self, id: str) -> int | None:
        """Where the row with an id is; None if there is none."""
        position: int = pc.index(self.table["id"], pa.scalar(id, self.table.schema.field("id").type)).as_py()
        return None if position < 0 else position


def _reader(column: pa.ChunkedArray) -> _Read:
    """How the values of a column are read: texts and numbers from its buffers, which takes a fifth of Arrow's time."""
    kind, types = column.type, pa.types
    if column.num_chunks != 1 or not (types.is_string(kind) or types.is_integer(kind) or types.is_float64(kind)):
        return lambda positions: list(column.take(pa.array(positions)).to_pylist())
    array = column.chunk(0)
    read = _texts(array) if types.is_string(kind) else _numbers(array)
    if not array.null_count:
        return read
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return lambda positions: [
        value if present else None for value, present in zip(read(positions), valid[positions].tolist(), strict=True)
    ]


def _texts(array: pa.StringArray) -> _Read:
    _, offsets, content = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset :]
    letters = memoryview(content or b"")
    return lambda positions: [
        str(letters[start:stop], "utf-8")
        for start, stop in zip(bounds[positions].tolist(), bounds[positions + 1].tolist(), strict=True)
    ]


def _numbers(array: pa.Array) -> _Read:
    values = array.fill_null(0).to_numpy()
    return lambda positions: list(values[positions].tolist())
