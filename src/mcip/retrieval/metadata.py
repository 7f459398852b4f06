"""The columns of a source that an index keeps, under names that the table allows and with the types it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import datasets
import pyarrow as pa

from mcip.core.errors import DataError
from mcip.data.numbers import as_numbers
from mcip.data.photo_metadata import PHOTO_COLUMNS
from mcip.retrieval.table import OWN

# Columns that Lance adds to what it returns; those it reserves besides begin with `_row`.
_RESERVED: Final = frozenset(("_distance", "_score", "_fragid", "_relevance_score"))
_RESERVED_PREFIX: Final = "_row"


def column_names(names: Iterable[str]) -> dict[str, str]:
    """The name in the table of each of a source's columns; no two are equal, whatever their case.

    Names of the table's own columns and reserved ones get the prefix `source_`, a column without a name is called
    `unnamed`, and characters that Lance refuses become `_`.
    """
    found: dict[str, str] = {}
    taken = set(OWN)
    # Those that keep their names come first.
    for name in sorted(names, key=lambda name: _safe(name) != name):
        base = candidate = _safe(name)
        number = 2
        while candidate.lower() in taken:
            candidate, number = f"{base}_{number}", number + 1
        taken.add(candidate.lower())
        found[name] = candidate
    return found


def _safe(name: str) -> str:
    text = "".join("_" if letter in ".`\0" else letter for letter in name).strip() or "unnamed"
    reserved = text.lower() in _RESERVED or text.lower().startswith(_RESERVED_PREFIX)
    return f"source_{text}" if reserved or text.lower() in OWN else text


def useful_columns(
    columns: Mapping[str, pa.ChunkedArray], features: Mapping[str, object], texts_may_be_numbers: bool
) -> pa.Table:
    """The columns that can be filtered by or shown: no images, no bytes, none that is empty.

    Args:
        columns: The source's.
        features: Their types as `datasets` knows them.
        texts_may_be_numbers: Whether the source, CSV, has texts only: columns of numbers become numbers.
    """
    kept: dict[str, pa.ChunkedArray] = {}
    for name, column in columns.items():
        kind, feature = column.type, features.get(name)
        is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)
        if is_binary or isinstance(feature, datasets.Image | datasets.Audio) or column.null_count == len(column):
            continue
        if isinstance(feature, datasets.ClassLabel):
            names = feature.names
            column = pa.chunked_array([[None if at is None or at < 0 else names[at] for at in column.to_pylist()]])
        kept[name] = as_numbers(column) if texts_may_be_numbers else column
    new_names = column_names(kept)
    # The columns come from several tables, in chunks of their own.
    return pa.table({new_names[name]: pa.array(column.to_pylist(), column.type) for name, column in kept.items()})


def fit_types(
    metadata: pa.Table, types: Mapping[str, pa.DataType], source: str
) -> tuple[pa.Table, dict[str, pa.DataType]]:
    """Fit a listing's columns to a table's: cast where no value changes, else both become texts.

    Args:
        metadata: The listing's columns.
        types: Those of the table's columns.
        source: What messages call the listing.

    Returns:
        The columns, and the table's columns that must become another type.

    Raises:
        DataError: A column holds something that is neither text nor a number, and of another type than before.
    """
    wider: dict[str, pa.DataType] = {}
    for at, field in enumerate(metadata.schema):
        expected = types.get(field.name)
        if expected is None or expected == field.type:
            continue
        column = metadata[field.name]
        try:
            cast = column.cast(expected)
            same = cast.cast(field.type).equals(column)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            same = False
        if not same:
            if not (_is_simple(expected) and _is_simple(field.type)):
                raise DataError(
                    f"The column {field.name!r} of the index holds {expected}, but that of {source} holds {field.type} "
                    "now. Rename it, or make a new index."
                )
            both_numbers = not (pa.types.is_string(expected) or pa.types.is_string(field.type))
            kind = pa.float64() if both_numbers else pa.string()
            wider[field.name] = kind
            cast = column.cast(kind)
        metadata = metadata.set_column(at, field.name, cast)
    return metadata, wider


def _is_simple(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def file_columns(ids: Sequence[str]) -> pa.Table:
    """The columns of files: their folders, and what they will say of themselves when they are read."""
    folders = pa.table({"folder": pa.array([str(PurePosixPath(name).parent) for name in ids], pa.string())})
    for column in PHOTO_COLUMNS:
        folders = folders.append_column(column, pa.nulls(len(ids), column.type))
    return folders


def has_facts(metadata: pa.Schema) -> bool:
    """Whether the columns of a listing are those of files, which may say something of themselves."""
    return all(
        column.name in metadata.names and metadata.field(column.name).type == column.type for column in PHOTO_COLUMNS
    )


def merged_facts(facts: Sequence[dict[str, Any]], metadata: pa.Table) -> dict[str, list[Any]]:
    """What photographs say of themselves, where the source itself says nothing."""
    names = [name for name in PHOTO_COLUMNS.names if any(name in found for found in facts)]
    listed = {name: metadata[name].to_pylist() for name in names}
    return {
        name: [found.get(name) if value is None else value for found, value in zip(facts, listed[name], strict=True)]
        for name in names
    }
