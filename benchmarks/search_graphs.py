"""The sides of `benchmarks/search.py` that are graphs of usearch and rabitqlib, by themselves."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from search_vectors import BLOCK, WIDTHS, Found, K, Queries, Vectors
from usearch.index import Index as UsearchIndex

from mcip.retrieval.ann.exact import rescore
from mcip.retrieval.ann.hnsw import CONNECTIVITY, EXPANSION_ADD

rabitqlib: Any = importlib.import_module("rabitqlib")


class Usearch:
    """The graph of usearch, with vectors in bfloat16 or quantized to bytes: no table, no rescoring."""

    widths = WIDTHS
    dtype = "bf16"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "graph.usearch"

    def prepare(self, vectors: Vectors) -> None: ...
    def build(self, vectors: Vectors, texts: Queries) -> None:
        graph = UsearchIndex(
            ndim=vectors.shape[1], metric="ip", dtype=self.dtype, connectivity=CONNECTIVITY, expansion_add=EXPANSION_ADD
        )
        for start in range(0, len(vectors), BLOCK):
            part = vectors[start : start + BLOCK].astype(np.float32)
            graph.add(np.arange(start, start + len(part)), part)
        graph.save(os.fspath(self.file))

    def open(self) -> None:
        self.graph: Any = UsearchIndex.restore(os.fspath(self.file), view=True)

    def search(self, query: Queries, kind: str, width: int) -> Found:
        self.graph.expansion_search = width
        return np.asarray(self.graph.search(query, K, threads=1).keys.astype(np.int64))


class UsearchI8(Usearch):
    dtype = "i8"


class RaBitQ:
    """HNSW-RaBitQ by itself, with what it finds rescored by the vectors in half precision: no table."""

    widths = WIDTHS
    bits = 5
    fetched = 20

    def __init__(self, folder: Path) -> None:
        self.file = os.fspath(folder / "graph.rabitq")
        self.copy = folder / "vectors.npy"

    def prepare(self, vectors: Vectors) -> None:
        np.save(self.copy, vectors)

    def new(self, dim: int, size: int) -> Any:
        return rabitqlib.HnswIndex(dim, size, CONNECTIVITY, EXPANSION_ADD, self.bits, "ip")

    def build(self, vectors: Vectors, texts: Queries) -> None:
        full = np.asarray(vectors, np.float32)
        graph = self.new(full.shape[1], len(full))
        clusters = np.zeros(len(full), np.uint32)
        graph.build(full, full.mean(0, keepdims=True), clusters, os.cpu_count() or 1, fast_quantization=True)
        graph.save(self.file)

    def open(self) -> None:
        self.graph: Any = rabitqlib.HnswIndex.load(self.file)
        self.vectors: Vectors = np.asarray(np.load(self.copy, mmap_mode="r"))

    def search(self, query: Queries, kind: str, width: int) -> Found:
        found, _ = self.graph.search(query[None], self.fetched, max(self.fetched, width), 1)
        return rescore(self.vectors, query, found[0].astype(np.int64), K)[1]


class RaBitQ4(RaBitQ):
    bits = 4


class RaBitQ8(RaBitQ):
    bits = 8


class SymphonyQg(RaBitQ):
    """The graph of SymphonyQG (Gou et al., SIGMOD 2025) over full vectors; it takes no additions."""

    fetched = K

    def prepare(self, vectors: Vectors) -> None: ...
    def build(self, vectors: Vectors, texts: Queries) -> None:
        full = np.asarray(vectors, np.float32)
        graph = rabitqlib.SymqgIndex(full.shape[1], 2 * CONNECTIVITY, "ip")
        graph.build(full, EXPANSION_ADD, os.cpu_count() or 1)
        graph.save(self.file)

    def open(self) -> None:
        self.graph = rabitqlib.SymqgIndex.load(self.file)

    def search(self, query: Queries, kind: str, width: int) -> Found:
        return np.asarray(self.graph.search(query[None], K, width)[0][0].astype(np.int64))
