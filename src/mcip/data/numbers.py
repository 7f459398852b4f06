"""Texts that are numbers: turned into numbers only where nothing is lost."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

# Whole numbers up to here are exact in floating point.
_EXACT = 2**53


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts as int64 or float64 where each cell can be had back from its number, else the column itself.

    So "7" becomes a number; "007", "1.10" beside "1.1", "1e5", "0x10", "nan" and "109876543210987654321" stay texts, as
    does every other cell of their column. Null stays null; a column of nulls stays as it is.

    Args:
        column: Strings.
    """
    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return column
    for kind in (pa.int64(), pa.float64()):
        try:
            numbers = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        if _same_texts(column, numbers):
            return numbers
    return column


def whole_texts(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of floats as texts of whole numbers, as pandas keeps those with gaps; None where one is not whole."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())  # Arrow does not compute with half floats
    values = column.drop_null() if column.null_count else column
    finite = pc.all(pc.is_finite(values), min_count=0).as_py()
    if not finite or not pc.all(pc.equal(pc.round(values), values), min_count=0).as_py():
        return None
    if len(values) and max(abs(value) for value in pc.min_max(values).as_py().values()) >= _EXACT:
        return None
    return column.cast(pa.int64()).cast(pa.string())


def _same_texts(column: pa.ChunkedArray, numbers: pa.ChunkedArray) -> bool:
    if pa.types.is_integer(numbers.type):
        return bool(pc.all(pc.equal(numbers.cast(pa.string()), column)).as_py())
    texts = column.to_pylist()
    # A column may mix "5" and "2.5", but not "5" and "5.0".
    same = all(text is None or text in _spellings(float(text)) for text in texts)
    return same and pc.count_distinct(column).as_py() == pc.count_distinct(numbers).as_py()


def _spellings(value: float) -> set[str]:
    if not abs(value) < _EXACT:  # also not a number
        return set()
    return {repr(value), str(int(value))} if value.is_integer() else {repr(value)}
