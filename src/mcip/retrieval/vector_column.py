"""The column `vector` of an index's table: what it stores of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.embeddings.compact import Codec
from mcip.retrieval.identity import Identity


def no_vectors(identity: Identity, codec: Codec | None) -> NDArray[Any]:
    """What a table of this identity stores of no vector: of its type, shape (0, D)."""
    if codec is None:
        return np.empty((0, identity.dim), np.float16)
    return codec.compress(np.empty((0, codec.source_dim), np.float32))


def vectors_array(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """Vectors of shape (n, D), float16 or as a codec stores them, as the column `vector`."""
    flat = np.ascontiguousarray(vectors, np.float16 if vectors.dtype.kind == "f" else None)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def vectors_of(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """The column `vector` as it is stored: float16 of shape (n, D), or what `IndexTable.codec` reads."""
    dim = column.type.list_size
    parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    flat = [part.flatten().to_numpy(zero_copy_only=False) for part in parts]
    joined = flat[0] if len(flat) == 1 else np.concatenate(flat) if flat else np.empty(0, np.float16)
    array: NDArray[Any] = joined.reshape(-1, dim)
    return array
