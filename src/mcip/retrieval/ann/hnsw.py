"""The HNSW graph of a table: built at once, appended to, and searched in memory.

HNSW is Malkov and Yashunin, TPAMI 2020. Its nodes hold their vectors quantized by RaBitQ (Gao et al., SIGMOD 2025), in
the implementation of rabitqlib: few bits per dimension suffice, since what is found is rescored by the full vectors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write, explain_full_disk
from mcip.core.optional import module
from mcip.retrieval.ann.select import BITS

CONNECTIVITY: Final = 16
EXPANSION_ADD: Final = 128
# The widths of search that calibration tries, from the quickest to the most thorough.
EXPANSIONS: Final[tuple[int, ...]] = (
    16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1536,
    2048, 4096,
)  # fmt: skip
# Dimensions below this are filled up with zeros: rabitqlib takes no fewer.
LEAST_DIM: Final = 64
# Where more than this share of the nodes is new, building all of them takes less time than adding those: a node that
# is added is compared with quantized vectors, which takes about six times as long as with full ones.
ADDED_SHARE: Final = 0.15
_BLOCK: Final = 8192
# Vectors whose mean RaBitQ takes as the origin.
_SAMPLED: Final = 20_000


def grow_graph(
    vectors: NDArray[np.float16],
    path: Path,
    start: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the graph over some vectors to a file, atomically.

    Args:
        vectors: Shape (N, D), of unit length; the number of a vector is that of its node.
        path: The file.
        start: A graph over the first of these very vectors, to extend where few are new. One that cannot be read is
            ignored.
        advance: Is called with the number of vectors that were added.
    """
    graph = (start and _extended(vectors, start, advance)) or _built(vectors, path, advance)
    with atomic_write(path) as temporary:
        try:
            graph.save(os.fspath(temporary))
        except RuntimeError as error:
            raise ArtefactError(f"{path} cannot be written ({error}): is there room on the disk?") from error


class Graph:
    """A graph that is searched in memory; may be used by several threads."""

    def __init__(self, path: Path, dim: int) -> None:
        """Read the graph.

        Raises:
            ArtefactError: It is damaged.
        """
        try:
            self._graph = module("rabitqlib").HnswIndex.load(os.fspath(path))
        except (RuntimeError, OSError) as error:
            raise ArtefactError(f"{path} is damaged ({error}): remove it, and it is built again.") from error
        if self._graph.dim != max(dim, LEAST_DIM):
            raise ArtefactError(
                f"{path} holds vectors of {self._graph.dim} dimensions: remove it, and it is built again."
            )
        self._count = int(self._graph.num_stored_points)

    def __len__(self) -> int:
        return self._count

    def search(self, query: NDArray[np.float32], k: int, expansion: int) -> NDArray[np.int64]:
        """Numbers of about k vectors near to a query (D,), not in order; `expansion` is the width for up to 24."""
        k = min(k, self._count)
        # More neighbours lie further away, so that they need a wider search.
        found, _ = self._graph.search(_widened(query[None]), k, max(expansion, k, 2 * k - 24), 1)
        numbers: NDArray[np.int64] = found[0].astype(np.int64)
        return numbers


def _built(vectors: NDArray[np.float16], path: Path, advance: Callable[[int], None]) -> Any:
    """A new graph. The vectors in single precision stand in a file meanwhile, which may be larger than the memory."""
    count, dim = len(vectors), max(vectors.shape[1], LEAST_DIM)
    with tempfile.TemporaryFile(dir=path.parent) as file:
        with explain_full_disk(path):
            for at in range(0, count, _BLOCK):
                file.write(_widened(vectors[at : at + _BLOCK].astype(np.float32)).tobytes())
            file.flush()
        full = np.memmap(file, np.float32, "r", shape=(count, dim))
        origin = full[:: -(-count // _SAMPLED)].mean(0, keepdims=True)
        graph = module("rabitqlib").HnswIndex(dim, count, CONNECTIVITY, EXPANSION_ADD, BITS, "ip")
        graph.build(full, origin, np.zeros(count, np.uint32), os.cpu_count() or 1, fast_quantization=True)
        del full
    advance(count)
    return graph


def _extended(vectors: NDArray[np.float16], start: Path, advance: Callable[[int], None]) -> Any | None:
    """The graph of a file with the vectors that it lacks; None where it has to be built anew."""
    try:
        graph = module("rabitqlib").HnswIndex.load(os.fspath(start))
    except RuntimeError:
        return None
    count = int(graph.num_stored_points)
    if graph.dim != max(vectors.shape[1], LEAST_DIM) or not 0 <= len(vectors) - count <= ADDED_SHARE * len(vectors):
        return None
    advance(count)
    if count < len(vectors):
        graph.resize(len(vectors))
    for at in range(count, len(vectors), _BLOCK):
        block = vectors[at : at + _BLOCK].astype(np.float32)
        graph.add(_widened(block), None, os.cpu_count() or 1, fast_quantization=True)
        advance(len(block))
    return graph


def _widened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, D) with zeros behind them where D is below `LEAST_DIM`."""
    lacking = LEAST_DIM - vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, lacking))) if lacking > 0 else vectors
