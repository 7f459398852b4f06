"""The columns of a table that Milvus holds beside the vectors, so that a filter may use them.

Milvus has integers, floating-point numbers, texts, truth values and arrays. Dates, times, timestamps and decimals are
held as whole numbers of their steps (`mcip.retrieval.filter_types.Steps`). Which of a row's columns have no value is
told by an array of their numbers, since Milvus before 2.5 has no missing values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from mcip.core.errors import DataError
from mcip.retrieval.filter_types import kind_of, steps_of
from mcip.retrieval.table import IndexTable
from mcip.retrieval.vector_column import vectors_of

Held: TypeAlias = Literal["steps", "double", "text", "boolean", "texts", "integers"]
PREFIX: Final = "mcip_"
ROW: Final = "mcip_row"
FRAGMENT: Final = "mcip_fragment"
NULLS: Final = "mcip_nulls"
# Limits of Milvus: bytes of a text, elements of an array, fields of a collection less those above, id and vector.
TEXT_BYTES: Final = 65_535
ELEMENTS: Final = 4096
_FIELDS: Final = 59
# Types of the table's columns that Milvus can read from it, and how it calls them.
EXTERNAL: Final = {
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float": "FLOAT", "double": "DOUBLE",
    "bool": "BOOL", "string": "VARCHAR",
}  # fmt: skip
_INT64: Final = 2**63
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# Words of its expressions, which no column can be named by there.
_WORDS: Final = frozenset(
    ("and", "or", "not", "in", "like", "exists", "is", "null", "isnull", "true", "false", "empty", "interval", "iso",
     "array_contains", "array_contains_all", "array_contains_any", "array_length", "json_contains",
     "json_contains_all", "json_contains_any", "text_match", "phrase_match", "random_sample")
)  # fmt: skip
# What stands where there is no value.
_EMPTY: Final[dict[Held, Any]] = {
    "steps": 0, "double": 0.0, "text": "", "boolean": False, "texts": [], "integers": [],
}  # fmt: skip


@dataclass(frozen=True)
class HeldColumn:
    """A column that Milvus holds.

    Attributes:
        name: Of the column.
        held: As what.
        number: What stands in `NULLS` where it has no value; below 0 where it always has one.
        type: Of the table's column.
        external: Whether Milvus reads it from the table, where missing values are null.
    """

    name: str
    held: Held
    number: int
    type: pa.DataType
    external: bool = False

    @property
    def missing(self) -> str:
        """The expression that is true where there is no value."""
        return f"{self.name} is null" if self.external else f"array_contains({NULLS}, {self.number})"

    @property
    def present(self) -> str:
        """The expression that is true where there is a value."""
        return f"{self.name} is not null" if self.external else f"not {self.missing}"


def held_columns(table: IndexTable) -> dict[str, HeldColumn]:
    """The columns that Milvus can hold, by their names: at most 59, in the table's order."""
    columns: dict[str, HeldColumn] = {}
    for name in table.shown:
        type_ = table.schema.field(name).type
        held = _held(type_)
        named = _NAME.fullmatch(name) and not name.startswith(PREFIX) and name.lower() not in _WORDS
        if name != "id" and held is not None and named and len(columns) < _FIELDS:
            columns[name] = HeldColumn(name, held, len(columns), type_)
    return columns


def external_columns(table: IndexTable) -> dict[str, HeldColumn]:
    """Those of `held_columns` that Milvus can read from the table as they are: texts, numbers and truth values."""
    columns = held_columns(table).values()
    return {column.name: replace(column, external=True) for column in columns if str(column.type) in EXTERNAL}


def rows_of(batch: pa.RecordBatch, columns: dict[str, HeldColumn], fragment: int) -> list[dict[str, Any]]:
    """Rows of the table, which have `_rowid`, as Milvus takes them.

    Raises:
        DataError: A text is longer than Milvus holds.
    """
    vectors = vectors_of(batch["vector"]).astype("float32")
    ids, row_ids = batch["id"].to_pylist(), batch["_rowid"].to_pylist()
    _check_texts("id", ids, ids)
    rows: list[dict[str, Any]] = [
        {"id": id, "vector": vector, ROW: row_id, FRAGMENT: fragment, NULLS: []}
        for id, vector, row_id in zip(ids, vectors, row_ids, strict=True)
    ]
    for column in columns.values():
        values = _values(batch[column.name], column)
        if column.held == "text":
            _check_texts(column.name, values, ids)
        for row, value in zip(rows, values, strict=True):
            row[column.name] = _EMPTY[column.held] if value is None else value
            if value is None:
                row[NULLS].append(column.number)
    return rows


def _held(type_: pa.DataType) -> Held | None:
    kind = kind_of(type_)
    if kind in ("text", "boolean"):
        return kind
    if kind == "number" and pa.types.is_floating(type_):
        return "double"
    if kind in ("number", "date", "timestamp", "zoned timestamp", "time"):
        steps = steps_of(type_)
        return "steps" if steps.lowest >= -_INT64 and steps.highest < _INT64 else None
    if kind == "list":
        held = _held(type_.value_type)
        if held == "text":
            return "texts"
        return "integers" if held == "steps" and pa.types.is_integer(type_.value_type) else None
    return None


def _values(array: pa.Array, column: HeldColumn) -> list[Any]:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    type_ = array.type
    if column.held == "steps" and pa.types.is_decimal(type_):
        return [None if value is None else int(value.scaleb(type_.scale)) for value in array.to_pylist()]
    if column.held == "steps":
        if not pa.types.is_integer(type_):
            array = array.cast(pa.int32() if type_.bit_width == 32 else pa.int64())
        return list(array.cast(pa.int64()).to_pylist())
    if column.held == "double":
        numbers = array.cast(pa.float64())
        # A filter takes NaN for greater than every number, as infinity is.
        return list(pc.if_else(pc.is_nan(numbers), float("inf"), numbers).to_pylist())
    if column.held in ("texts", "integers"):
        return [None if value is None else _elements(value, column) for value in array.to_pylist()]
    return list(array.to_pylist())


def _elements(values: list[Any], column: HeldColumn) -> list[Any]:
    if len(values) > ELEMENTS:
        raise DataError(f"The column {column.name} has a list of {len(values)}; Milvus holds at most {ELEMENTS}.")
    present = [value for value in values if value is not None]
    if column.held == "texts":
        _check_texts(column.name, present, present)
    return present


def _check_texts(name: str, texts: list[Any], ids: list[Any]) -> None:
    for text, id in zip(texts, ids, strict=True):
        if text is not None and len(text) * 4 > TEXT_BYTES and len(text.encode()) > TEXT_BYTES:
            raise DataError(
                f"The column {name} of {id[:200]!r} has more than {TEXT_BYTES:,} bytes, the most that Milvus holds: "
                "shorten it in the source, or leave the column out."
            )
