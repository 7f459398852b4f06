"""What a page offers to click on: the most frequent values of columns, and the days that dates span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from mcip.retrieval.filter_types import kind_of, quoted_text

# Columns that say where an image is or how large, rather than what it is.
_LEFT_OUT: Final = frozenset(("id", "path", "width", "height", "taken_offset"))
_COLUMNS: Final = 16
_VALUES: Final = 12
# Numbers of more different values than this are measured, not counted.
_NUMBERS: Final = 50
_MAX_LETTERS: Final = 100


@dataclass(frozen=True)
class FacetValue:
    """A value that several images have.

    Attributes:
        value: As it is shown.
        count: How many images have it.
        where: The filter that leaves them.
    """

    value: str
    count: int
    where: str


@dataclass(frozen=True)
class Facet:
    """The most frequent values of a column, at most 12: numbers ascending, others in descending order of counts."""

    column: str
    values: tuple[FacetValue, ...]


@dataclass(frozen=True)
class Span:
    """The first and the last day in a column of dates or timestamps, such as "2024-05-31"."""

    column: str
    first: str
    last: str


@dataclass(frozen=True)
class Facets:
    """What can be clicked on: at most 16 columns of each kind; `taken` comes before other dates."""

    columns: tuple[Facet, ...]
    spans: tuple[Span, ...]


def facets_of(schema: pa.Schema, columns: Iterable[str], read: Callable[[str], pa.ChunkedArray]) -> Facets:
    """Count the values of an index's columns.

    Args:
        schema: Of the table.
        columns: The names of the columns that filters may use.
        read: Returns a column.
    """
    found: list[Facet] = []
    spans: list[Span] = []
    for name in columns:
        kind = kind_of(schema.field(name).type)
        # A filter cannot name a column with a backtick in it.
        if name in _LEFT_OUT or "`" in name:
            continue
        if kind in ("date", "timestamp", "zoned timestamp") and len(spans) < _COLUMNS:
            spans += _span(name, read(name))
        elif kind in ("text", "boolean", "number", "list") and len(found) < _COLUMNS:
            found += _facet(name, schema.field(name).type, read)
    return Facets(tuple(found), tuple(sorted(spans, key=lambda span: span.column != "taken")))


def _span(name: str, column: pa.ChunkedArray) -> list[Span]:
    ends = pc.min_max(column)
    first, last = ends["min"].as_py(), ends["max"].as_py()
    return [] if first is None else [Span(name, str(first)[:10], str(last)[:10])]


def _facet(name: str, type_: pa.DataType, read: Callable[[str], pa.ChunkedArray]) -> list[Facet]:
    kind, is_list = kind_of(type_), kind_of(type_) == "list"
    held = type_.value_type if is_list else type_
    if kind_of(held) not in ("text", "boolean", "number") or (is_list and kind_of(held) != "text"):
        return []
    if kind_of(held) == "number" and not pa.types.is_integer(held):
        return []
    column = pc.list_flatten(read(name)) if is_list else read(name)
    counts = Counter({item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()})
    counts.pop(None, None)
    if kind == "number" and len(counts) > _NUMBERS:
        return []
    if name == "folder":
        counts = _with_folders_above(counts)
    common = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    shown = [(value, count) for value, count in common if count > 1 and 0 < len(str(value)) <= _MAX_LETTERS]
    quoted = '"' + name.replace('"', '""') + '"'
    shown = shown[:_VALUES]
    if kind == "number":
        shown.sort()
    values = [FacetValue(str(value), count, _where(name, quoted, value, is_list)) for value, count in shown]
    return [Facet(name, tuple(values))] if values else []


def _where(name: str, quoted: str, value: object, is_list: bool) -> str:
    literal = quoted_text(value) if isinstance(value, str) else str(value).upper()
    if is_list:
        return f"array_has({quoted}, {literal})"
    if name == "folder" and isinstance(value, str):
        return f"({quoted} = {literal} OR starts_with({quoted}, {quoted_text(value + '/')}))"
    return f"{quoted} = {literal}"


def _with_folders_above(counts: Counter[str]) -> Counter[str]:
    """How many images lie below each folder, directly or deeper; the outermost one, ".", is everything."""
    total: Counter[str] = Counter()
    for folder, count in counts.items():
        while folder and folder != ".":
            total[folder] += count
            folder = folder.rpartition("/")[0]
    return total
