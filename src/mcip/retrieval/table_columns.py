"""Changes of a whole column of an index's table."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.core.files import explain_full_disk
from mcip.core.optional import module
from mcip.retrieval.commits import add_column, commit
from mcip.retrieval.identity import KEY
from mcip.retrieval.table import IndexTable
from mcip.retrieval.vector_column import vectors_array, vectors_of

# Rows in memory while all are written anew; they may have thumbnails.
_REWRITTEN_AT_ONCE: Final = 8192
# Ends the name of a column whose type is being changed.
_CAST: Final = "__mcip_cast"


def change_types(table: IndexTable, types: Mapping[str, pa.DataType]) -> IndexTable:
    """Give columns another type, text or float64, to which their values are cast.

    Lance cannot do so in place. Interrupted, it is taken up again by the next call.
    """
    for name in table.schema.names:
        if name.endswith(_CAST) and name.removesuffix(_CAST) in table.schema.names:
            table.dataset.drop_columns([name])
        elif name.endswith(_CAST):
            table.dataset.alter_columns({"path": name, "name": name.removesuffix(_CAST)})
        table = table.latest() if name.endswith(_CAST) else table
    for name, kind in types.items():
        cast = f"cast(`{name}` as {'double' if pa.types.is_floating(kind) else 'string'})"
        with explain_full_disk(Path(table.uri)):
            add_column(table.uri, table.dataset, name + _CAST, cast).drop_columns([name])
            table.latest().dataset.alter_columns({"path": name + _CAST, "name": name})
        table = table.latest()
    return table


def rewrite_vectors(
    table: IndexTable, change: Callable[[NDArray[np.float16]], NDArray[np.float16]], **identity: Any
) -> IndexTable:
    """Change all vectors, and what the table was made with, in one commit.

    The rows are written anew, a batch at a time, and get other `_rowid`s; so the identity is a new one for what is
    derived from the table. Readers that have the old version open keep it.

    Args:
        table: Its newest version.
        change: Takes vectors (n, D), and gives those that take their place.
        identity: Facts of the identity that change.
    """
    content = json.dumps({**asdict(table.identity), **identity, "created": uuid.uuid4().hex})
    schema = table.schema.with_metadata({**(table.schema.metadata or {}), KEY: content.encode()})
    place = schema.get_field_index("vector")

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in table.dataset.to_batches(batch_size=_REWRITTEN_AT_ONCE):
            vectors = vectors_array(change(vectors_of(batch["vector"])))
            columns = [vectors if number == place else batch[name] for number, name in enumerate(schema.names)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    with explain_full_disk(Path(table.uri)):
        written = module("lance").fragment.write_fragments(
            reader, table.uri, schema=schema, mode="overwrite", enable_stable_row_ids=True, return_transaction=True
        )
        return IndexTable(table.uri, commit(table.uri, written))
