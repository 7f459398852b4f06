"""Choices of `mcip.retrieval.ann` measured: where search is exact, when a graph is built anew, why it has no texts.

python benchmarks/search_choices.py            about 4 minutes on two cores
python benchmarks/search_choices.py --quick    at a smaller size

exact: a query against 50,000 x 768 vectors in half precision, by `mcip.retrieval.ann.exact`, and the bare product in
single precision; milliseconds.
growth: seconds of CPU that building a graph over 30,000 x 768 vectors takes, and adding the last 5, 10, 20 and 30 % of
them to one over the others. `crossover` is the share from which building all anew takes less.
texts: graphs over 30,000 x 256 clustered vectors, asked by queries far from all of them, as texts are for a CLIP model.
Recall@10 and milliseconds at several widths of search: of the plain graph, with sample queries as nodes that are left
out of the results (the idea of OOD-DiskANN, without its rules for links), with twice the links, and of the plain graph
with the neighbours of the nearest sample queries as further candidates (the bipartite half of RoarGraph).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from usearch.index import Index

from mcip.retrieval.ann import hnsw
from mcip.retrieval.ann.exact import exact_search

Vectors = NDArray[np.float32]
WIDTHS = (64, 128, 256)
SHARES = (0.05, 0.1, 0.2, 0.3)
K = 10
# Sample queries that a query looks up in the bipartite table, and the neighbours that each of them brings.
NEAREST, BROUGHT = 4, 64


def unit(vectors: NDArray[np.floating[Any]]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class World:
    """Images and texts that share clusters, in two cones with a gap between them."""

    def __init__(self, dim: int, clusters: int = 600) -> None:
        self.rng = np.random.default_rng(0)
        self.dim = dim
        self.image_side, self.text_side = (0.8 * unit(self.rng.standard_normal((1, dim))) for _ in range(2))
        self.clusters = unit(self.rng.standard_normal((clusters, dim)))

    def _cluster(self, count: int) -> Vectors:
        return self.clusters[self.rng.integers(len(self.clusters), size=count)]

    def _noise(self, count: int) -> Vectors:
        return unit(self.rng.standard_normal((count, self.dim)))

    def images(self, count: int) -> Vectors:
        """Vectors of images, (count, D)."""
        return unit(self.image_side + 0.7 * self._cluster(count) + 0.7 * self._noise(count))

    def texts(self, count: int) -> Vectors:
        """Vectors of texts, (count, D)."""
        two = 0.45 * self._cluster(count) + 0.3 * self._cluster(count)
        return unit(self.text_side + two + 0.6 * self._noise(count))


def milliseconds(function: Callable[[], Any], rounds: int) -> float:
    """Median time of a call."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def measure_exact(quick: bool) -> dict[str, float]:
    rows, dim = (5_000 if quick else 50_000), 768
    vectors = unit(np.random.default_rng(0).standard_normal((rows, dim)))
    half, full = vectors.astype(np.float16), torch.from_numpy(vectors)
    query = torch.from_numpy(vectors[0])
    return {
        "half precision": milliseconds(lambda: exact_search(half, vectors[:1], K), 20),
        "single precision": milliseconds(lambda: torch.mv(full, query).topk(K), 20),
    }


def measure_growth(quick: bool) -> dict[str, Any]:
    rows, dim = (3_000, 128) if quick else (30_000, 768)
    vectors = World(dim).images(rows).astype(np.float16)

    def seconds(start: Path | None, path: Path) -> float:
        before = time.process_time()
        hnsw.grow_graph(vectors, path, start)
        return time.process_time() - before

    with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(hnsw, "ADDED_SHARE", 1.0):
        built, added = seconds(None, Path(folder, "all")), dict[str, float]()
        for share in SHARES:
            first = Path(folder, f"{share}")
            hnsw.grow_graph(vectors[: round(rows * (1 - share))], first)
            added[f"{share:g}"] = seconds(first, Path(folder, "grown"))
    shares, costs = np.array(SHARES), np.array(list(added.values()))
    # The cost of adding is proportional to the nodes.
    crossover = built / float(shares @ costs / (shares @ shares))
    return {"built": built, "added": added, "crossover": crossover}


def build(vectors: Vectors, keys: NDArray[np.uint64], connectivity: int = 16) -> Any:
    graph = Index(
        ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=connectivity, expansion_add=128,
        enable_key_lookups=False,
    )  # fmt: skip
    graph.add(keys, vectors, threads=1)
    return graph


def measure_texts(quick: bool) -> dict[str, list[tuple[float, float]]]:
    rows = 5_000 if quick else 30_000
    world = World(dim=256)
    images, sample, queries = world.images(rows), world.texts(rows // 10), world.texts(300)
    expected = [np.argpartition(-(images @ query), K)[:K] for query in queries]
    numbers = np.arange(rows, dtype=np.uint64)

    def score(candidates: Callable[[Vectors], NDArray[np.int64]]) -> tuple[float, float]:
        recalls, seconds = [], []
        for query, right in zip(queries, expected, strict=True):
            start = time.perf_counter()
            found = candidates(query)
            best = found[np.argsort(-(images[found] @ query))[:K]]
            seconds.append(time.perf_counter() - start)
            recalls.append(len(np.intersect1d(best, right)) / K)
        return float(np.mean(recalls)), 1e3 * float(np.median(seconds))

    def searcher(graph: Any, width: int, k: int) -> Callable[[Vectors], NDArray[np.int64]]:
        graph.expansion_search = width

        def candidates(query: Vectors) -> NDArray[np.int64]:
            keys = np.asarray(graph.search(query, k, threads=1).keys, np.int64)
            return keys[keys < rows]

        return candidates

    figures: dict[str, list[tuple[float, float]]] = {}
    plain = build(images, numbers)
    figures["plain graph"] = [score(searcher(plain, width, 2 * K)) for width in WIDTHS]
    for count in (rows // 50, rows // 10):
        together = np.concatenate([images, sample[:count]])
        order = world.rng.permutation(len(together))
        graph = build(together[order], order.astype(np.uint64))
        figures[f"{count:,} texts as nodes"] = [score(searcher(graph, width, width - K)) for width in WIDTHS]
    wide = build(images, numbers, connectivity=32)
    figures["32 links"] = [score(searcher(wide, width, 2 * K)) for width in WIDTHS]
    known = sample[: rows // 60]
    brought = np.stack([np.argpartition(-(images @ text), BROUGHT)[:BROUGHT] for text in known])

    def bridged(width: int) -> Callable[[Vectors], NDArray[np.int64]]:
        graph_search = searcher(plain, width, 2 * K)

        def candidates(query: Vectors) -> NDArray[np.int64]:
            nearest = np.argpartition(-(known @ query), NEAREST)[:NEAREST]
            return np.unique(np.concatenate([graph_search(query), brought[nearest].ravel()]))

        return candidates

    figures[f"neighbours of {len(known):,} texts"] = [score(bridged(width)) for width in WIDTHS]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exact, growth, texts = measure_exact(options.quick), measure_growth(options.quick), measure_texts(options.quick)
    console = Console()
    console.print("exact, ms: " + ", ".join(f"{name} {value:.2f}" for name, value in exact.items()))
    added = ", ".join(f"{float(share):.0%} added {seconds:.1f}" for share, seconds in growth["added"].items())
    console.print(f"growth, CPU s: all built {growth['built']:.1f}, {added}; crossover at {growth['crossover']:.0%}")
    table = Table("texts", *(f"width {width}" for width in WIDTHS))
    for name, found in texts.items():
        table.add_row(name, *(f"{recall:.3f}, {ms:.2f} ms" for recall, ms in found))
    console.print(table)
    print(json.dumps({"exact": exact, "growth": growth, "texts": texts}))


if __name__ == "__main__":
    main()
