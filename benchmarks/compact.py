"""Binary search with float rescoring, beside exact search and the graph: does it pay?

python benchmarks/compact.py                  some minutes on one core: 100,000 x 768, 3 minutes of them for the graph
python benchmarks/compact.py --quick          seconds: 5,000 x 128
python benchmarks/compact.py --skip-graph     without building the graph

The vectors are the clustered ones of `search_vectors.py`. A bit is the sign around the mean; a query is compared by the
number of bits that differ from its own, and the `depth` nearest are rescored in single precision. Each side takes for
each kind of query the least depth or width that finds 95 % of the ten neighbours. Times are medians over one query at a
time, all sides in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from search_graphs import RaBitQ
from search_vectors import BLOCK, KINDS, WIDTHS, Clustered, Found, K, Queries, Vectors

from mcip.embeddings.compact import Codec, Compact
from mcip.retrieval.ann.exact import exact_search, rescore

TARGET = 0.95
DEPTHS = (20, 40, 100, 200, 400, 1000, 2000, 4000, 8000)


class Binary:
    """Bits of all vectors, compared one query at a time."""

    widths = DEPTHS

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.codec = Codec.fit(Compact("binary"), vectors)
        blocks = [self.codec.compress(vectors[at : at + BLOCK]) for at in range(0, len(vectors), BLOCK)]
        self.bits = np.concatenate(blocks).view(np.uint64)

    def search(self, query: Queries, kind: str, depth: int) -> Found:
        own = self.codec.compress(query[None]).view(np.uint64)
        differ = np.bitwise_count(self.bits ^ own).sum(1, dtype=np.uint16)
        depth = min(depth, len(differ) - 1)
        return rescore(self.vectors, query, np.argpartition(differ, depth)[:depth], K)[1]


class Exact:
    """Every vector in half precision, as indexes of this size are searched."""

    widths = (0,)

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def search(self, query: Queries, kind: str, width: int) -> Found:
        return np.asarray(exact_search(self.vectors, query[None], K, None)[1][0])


def measured(
    search: Callable[[Queries, str, int], Found], widths: tuple[int, ...], kind: str, queries: Queries,
    truth: NDArray[np.int64],
) -> dict[str, Any]:  # fmt: skip
    """Recall@10 and the median time at the least width that reaches the target, or at the last."""
    for width in widths:
        shares, seconds = [], []
        for query, expected in zip(queries, truth, strict=True):
            start = time.perf_counter()
            found = search(query, kind, width)
            seconds.append(time.perf_counter() - start)
            shares.append(len(np.intersect1d(found[:K], expected)) / K)
        if np.mean(shares) >= TARGET:
            break
    return {"recall": round(float(np.mean(shares)), 3), "ms": round(1e3 * float(np.median(seconds)), 3), "width": width}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--skip-graph", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.size, options.dim, options.queries = 5_000, 128, 20
    made = Clustered(options.size, options.dim)
    vectors = np.empty((options.size, options.dim), np.float16)
    for number, at in enumerate(range(0, options.size, BLOCK)):
        vectors[at : at + BLOCK] = made.images(min(BLOCK, options.size - at), number)
    queries = {kind: found[: options.queries] for kind, found in made.queries().items()}
    exact = Exact(vectors)
    truth = {kind: np.stack([exact.search(query, kind, 0) for query in queries[kind]]) for kind in KINDS}
    figures: dict[str, Any] = {"size": options.size, "dim": options.dim}
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Any] = {"exact": exact, "binary": Binary(vectors)}
        if not options.skip_graph:
            sides["graph"] = RaBitQ(Path(folder))
            sides["graph"].prepare(vectors)
            sides["graph"].build(vectors, queries["text"])
            sides["graph"].open()
        for name, side in sides.items():
            widths = WIDTHS if name == "graph" else side.widths
            figures[name] = {kind: measured(side.search, widths, kind, queries[kind], truth[kind]) for kind in KINDS}
            print(name, figures[name], flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
