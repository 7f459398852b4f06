"""The HNSW graph of a table: built in steps that outlive the process, appended to, and searched from a memory map.

HNSW is Malkov and Yashunin, TPAMI 2020, in the implementation of usearch, with vectors in bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write
from mcip.core.optional import module

CONNECTIVITY: Final = 16
EXPANSION_ADD: Final = 128
# The widths of search that calibration tries, from the quickest to the most thorough.
EXPANSIONS: Final[tuple[int, ...]] = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
# Rows after which a graph that is being built is written to the disk.
_STEP: Final = 250_000
_BLOCK: Final = 8192


def grow_graph(
    vectors: NDArray[np.float16],
    path_of: Callable[[int], Path],
    start: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Path]:
    """Build the graph over some vectors, and yield its file each time that it was written.

    Args:
        vectors: Shape (N, D); the number of a vector is its key.
        path_of: Where a graph over this many vectors is written.
        start: A graph over the first of these very vectors, to extend. One that cannot be read is ignored.
        advance: Is called with the number of vectors that were added.
    """
    graph = _new(vectors.shape[1])
    if start is not None:
        try:
            graph.load(os.fspath(start))
        except RuntimeError:
            graph = _new(vectors.shape[1])
    if len(graph) > len(vectors):
        graph = _new(vectors.shape[1])
    saved = len(graph)
    advance(saved)
    for at in range(saved, len(vectors), _BLOCK):
        block = vectors[at : at + _BLOCK].astype(np.float32)
        graph.add(np.arange(at, at + len(block), dtype=np.uint64), block)
        advance(len(block))
        if len(graph) - saved >= _STEP or len(graph) == len(vectors):
            saved = len(graph)
            path = path_of(saved)
            with atomic_write(path) as temporary:
                graph.save(os.fspath(temporary))
            yield path


class Graph:
    """A graph that is searched from a memory map; several widths of search share the map."""

    def __init__(self, path: Path, dim: int) -> None:
        """Map the graph.

        Raises:
            ArtefactError: It is damaged.
        """
        self.path = path
        self.dim = dim
        try:
            # The map keeps this very file, whatever takes its place later.
            self._content = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        self._views: dict[int, Any] = {}
        self.view(EXPANSIONS[0])

    def __len__(self) -> int:
        return len(self.view(EXPANSIONS[0]))

    def view(self, expansion: int) -> Any:
        """The graph with this width of search: a separate view, since other threads may use another width."""
        if expansion not in self._views:
            graph = _new(self.dim)
            try:
                graph.view(self._content.data)
            except RuntimeError as error:
                raise _damaged(self.path, error) from error
            graph.expansion_search = expansion
            self._views[expansion] = graph
        return self._views[expansion]

    def search(self, query: NDArray[np.float32], k: int, expansion: int) -> NDArray[np.int64]:
        """Numbers of about k vectors near to a query (D,), not in order."""
        keys: NDArray[np.int64] = self.view(_width(expansion, k)).search(query, k, threads=1).keys.astype(np.int64)
        return keys


def _width(expansion: int, k: int) -> int:
    """The width of search for k neighbours, where `expansion` is that for ten."""
    return next((width for width in EXPANSIONS if width >= max(expansion, 2 * k)), max(EXPANSIONS[-1], k))


def _damaged(path: Path, error: Exception) -> ArtefactError:
    return ArtefactError(f"{path} is damaged ({error}): remove it, and it is built again.")


def _new(dim: int) -> Any:
    # Keys are row numbers and never looked up: without a table of them a view opens at once.
    return module("usearch.index").Index(
        ndim=dim, metric="ip", dtype="bf16", connectivity=CONNECTIVITY, expansion_add=EXPANSION_ADD,
        enable_key_lookups=False,
    )  # fmt: skip
