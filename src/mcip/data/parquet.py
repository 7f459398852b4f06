"""Parquet files as one table: shards may miss columns, have more, or have some in which every row is null."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import DataError
from mcip.data.cache import stored
from mcip.data.remote import RemoteFile
from mcip.data.schema import NAMES, folded

Shard: TypeAlias = Path | RemoteFile

_BATCH_BYTES: Final = 32 * 2**20
_BATCH_ROWS: Final = 10_000
_BUFFER_BYTES: Final = 2**20


def parquet_rows(files: Sequence[Shard], columns: Sequence[str] | None = None) -> datasets.Dataset:
    """Read parquet files, memory-mapped; a column that a file lacks is null in its rows.

    Args:
        files: Paths or remote files.
        columns: Read these only.

    Raises:
        DataError: A file is damaged, columns of one name have types that do not go together, or there is not one row.
    """
    shards = [file for file, count in zip(files, parquet_counts(files), strict=True) if count]
    if not shards:
        raise DataError(f"{files[0] if len(files) == 1 else _folder(files[0])} has no rows")
    features = _features(shards, columns)
    schema = features.arrow_schema

    def tables() -> Iterator[pa.Table]:
        for shard in shards:
            try:
                yield from _batches(shard, schema)
            except _errors(shard) as error:
                raise _unreadable(shard, error) from error

    return stored(tables, features, shards, f"parquet {columns}")


def parquet_counts(files: Sequence[Shard]) -> list[int]:
    """The number of rows of each parquet file."""
    counts = []
    for file in files:
        with _open(file) as parquet:
            counts.append(parquet.metadata.num_rows)
    return counts


def column_names(file: Shard) -> list[str]:
    """The columns of a parquet file."""
    with _open(file) as parquet:
        return list(parquet.schema_arrow.names)


def _open(file: Shard) -> pq.ParquetFile:
    try:
        # Without a buffer of its own each group of rows would be read whole.
        stream = file.open() if isinstance(file, RemoteFile) else file
        return pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
    except _errors(file) as error:
        raise _unreadable(file, error) from error


def _errors(file: Shard) -> tuple[type[Exception], ...]:
    """What reading may raise; remote file systems raise errors of their own."""
    return (Exception,) if isinstance(file, RemoteFile) else (pa.ArrowException, OSError)


def _batches(file: Shard, schema: pa.Schema) -> Iterator[pa.Table]:
    with _open(file) as parquet:
        groups = [parquet.metadata.row_group(number) for number in range(parquet.metadata.num_row_groups)]
        largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
        rows = int(min(max(_BATCH_BYTES / max(largest, 1), 1), _BATCH_ROWS))
        present = set(parquet.schema_arrow.names)
        names = [name for name in schema.names if name in present]
        for batch in parquet.iter_batches(rows, columns=names):
            columns = [
                _cast(batch.column(name), field.type)
                if (name := field.name) in names
                else pa.nulls(len(batch), field.type)
                for field in schema
            ]
            yield pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(kind)


def _features(files: Sequence[Shard], columns: Sequence[str] | None) -> datasets.Features:
    """The columns of all files, each of the type that holds what every file has in it."""
    fields: dict[str, pa.Field] = {}
    special: dict[str, datasets.features.features.FeatureType] = {}
    for file in files:
        with _open(file) as parquet:
            schema = parquet.schema_arrow
        twice = {name for name in schema.names if schema.names.count(name) > 1}
        if twice:
            raise DataError(f"{file} has the column {min(twice)!r} more than once")
        for field in schema:
            if columns is not None and field.name not in columns:
                continue
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            field = pa.field(field.name, kind)
            fields[field.name] = _unified(fields.get(field.name, field), field, file)
        for name, feature in _stated(schema).items():
            if special.setdefault(name, feature) != feature and isinstance(feature, datasets.ClassLabel):
                raise DataError(f"{file}: the classes of the column {name!r} are not those of the other files")
    found = {}
    for name, field in fields.items():
        try:
            found[name] = datasets.Features.from_arrow_schema(pa.schema([field]))[name]
        except (ValueError, NotImplementedError) as error:
            if columns is None and folded(name) not in NAMES:
                continue  # a column of maps or the like, which no table reads
            raise DataError(f"{files[0]}: the column {name!r} holds {field.type}, which cannot be read") from error
        stated = special.get(name)
        if stated is not None and datasets.Features({name: stated}).arrow_schema.field(name).type == field.type:
            found[name] = stated
    return datasets.Features(found)


def _stated(schema: pa.Schema) -> dict[str, datasets.features.features.FeatureType]:
    """The columns that `datasets` wrote as class labels, images or the like."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    try:
        return dict(datasets.Features.from_arrow_schema(schema))
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):  # of a later version
        return {}


def _unified(known: pa.Field, field: pa.Field, file: Shard) -> pa.Field:
    try:
        return pa.unify_schemas([pa.schema([known]), pa.schema([field])], promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{file}: the column {field.name!r} holds {field.type}, in the files before it holds {known.type}"
        ) from error


def _unreadable(file: Shard, error: Exception) -> DataError:
    return DataError(f"cannot read {file}, it is cut off or no parquet file: {error}")


def _folder(file: Shard) -> str:
    return str(file.parent) if isinstance(file, Path) else file.uri.rpartition("/")[0]
