"""What results show of the rows of an index: in memory, where that is little enough, since every query reads some."""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mcip.retrieval.results import Hit
from mcip.retrieval.table import IndexTable

# Rows up to which they are kept in memory rather than read for each query.
_IN_MEMORY: Final = 5_000_000

# Returns the values of a column at these positions.
Read: TypeAlias = Callable[[NDArray[np.int64]], list[Any]]


class ShownRows:
    """What results show of the rows of one version of a table. A row is named by its slot."""

    def __init__(self, table: IndexTable, row_ids: NDArray[np.int64]) -> None:
        """Read it into memory, where that is little enough.

        Args:
            table: The version.
            row_ids: The `_rowid` of each slot.
        """
        self._table, self._row_ids = table, row_ids
        self._rows: pa.Table | None = None
        if len(row_ids) <= _IN_MEMORY:
            rows = table.read(table.shown).sort_by("_rowid").combine_chunks()
            self._position = np.searchsorted(rows["_rowid"].to_numpy().astype(np.int64), row_ids)
            self._rows = rows.drop_columns(["_rowid"])
            self._read = readers(self._rows)

    def hits(self, slots: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """The rows in these slots, with these scores."""
        if self._rows is None:
            rows = self._table.take(self._row_ids[slots], self._table.shown)
            columns = {name: rows[name].to_pylist() for name in self._table.shown}
        else:
            positions = self._position[slots]
            columns = {name: read(positions) for name, read in self._read.items()}
        ids, *fixed = (columns.pop(name) for name in ("id", "path", "width", "height"))
        names = tuple(columns)
        metadata = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return list(starmap(Hit, zip(ids, scores.tolist(), *fixed, metadata or [{} for _ in slots], strict=True)))

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows."""
        column: pa.ChunkedArray = (self._table.read([name]) if self._rows is None else self._rows)[name]
        return column

    def slots(self, id: str) -> NDArray[np.int64] | None:
        """The slots of the row with an id, several where it was replaced; None where rows are not in memory."""
        if self._rows is None:
            return None
        position = pc.index(self._rows["id"], pa.scalar(id, self._rows.schema.field("id").type)).as_py()
        return np.flatnonzero(self._position == position) if position >= 0 else np.empty(0, np.int64)


def readers(rows: pa.Table) -> dict[str, Read]:
    """How the values of each column are read."""
    return {name: _reader(rows[name]) for name in rows.column_names}


def _reader(column: pa.ChunkedArray) -> Read:
    """Texts, numbers and times are read from the buffers: Arrow's `take` costs a query several times as much."""
    text, flat = pa.types.is_string(column.type), _is_flat(column.type)
    if column.num_chunks != 1 or not (text or flat):
        return lambda positions: list(column.take(pa.array(positions)).to_pylist())
    array = column.chunk(0)
    read = _texts(array) if text else _values(array)
    if not array.null_count:
        return read
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return lambda positions: [
        value if present else None for value, present in zip(read(positions), valid[positions].tolist(), strict=True)
    ]


def _is_flat(kind: pa.DataType) -> bool:
    """Whether NumPy has the values of a type, and returns the same objects for them as Arrow."""
    # NumPy returns nanoseconds as numbers.
    local_time = pa.types.is_timestamp(kind) and kind.tz is None and kind.unit != "ns"
    return pa.types.is_integer(kind) or pa.types.is_float64(kind) or local_time


def _texts(array: pa.StringArray) -> Read:
    _, offsets, content = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset :]
    letters = memoryview(content or b"")
    return lambda positions: [
        str(letters[start:stop], "utf-8")
        for start, stop in zip(bounds[positions].tolist(), bounds[positions + 1].tolist(), strict=True)
    ]


def _values(array: pa.Array) -> Read:
    values = array.fill_null(pa.scalar(0, array.type)).to_numpy()
    return lambda positions: list(values[positions].tolist())
