"""Vectors, and tables of them without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.retrieval.identity import Identity
from mcip.retrieval.table import IndexTable, create_table, schema_of
from mcip.retrieval.vector_column import vectors_array

DIM = 24


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def cloud(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors in clusters, on one side of the sphere."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, DIM))
    return unit(2 * np.eye(DIM)[:1] + centers[rng.integers(20, size=rows)] + 0.5 * rng.standard_normal((rows, DIM)))


def probes(_: object = ()) -> NDArray[np.float32]:
    """Vectors away from the cloud, as those of texts are."""
    return unit(np.random.default_rng(9).standard_normal((50, DIM)) - 2 * np.eye(DIM)[:1])


def rows(vectors: NDArray[np.float32], first: int = 0, kind: str = "a") -> pa.Table:
    count = len(vectors)
    names = [f"{number:05d}" for number in range(first, first + count)]
    return pa.table(
        {
            "id": names, "vector": vectors_array(vectors), "path": names, "width": pa.array([1] * count, pa.int32()),
            "height": pa.array([1] * count, pa.int32()),
            "hash": [f"{int(abs(float(vector.sum())) * 1e9):016x}" for vector in vectors],
            "stamp": names, "kind": [kind] * count,
        }
    )  # fmt: skip


def new_table(place: Path, vectors: NDArray[np.float32] | None = None) -> IndexTable:
    """A table of vectors."""
    identity = Identity.new(model="none", fingerprint="f", dim=DIM, transform="model", thumbnails=0)
    table = create_table(str(place), schema_of(identity, pa.schema({"kind": pa.string()})))
    return table if vectors is None else table.append(rows(vectors))


def full_sort(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, numbers: list[int]) -> list[int]:
    """The k best of some vectors, by comparing all of them."""
    half = vectors.astype(np.float16).astype(np.float32)
    return sorted(numbers, key=lambda number: (-float(half[number] @ query), number))[:k]
