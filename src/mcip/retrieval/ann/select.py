"""Which way of searching a table takes, by its size and the machine's memory."""

from __future__ import annotations

import os
from typing import Final, Literal, TypeAlias

Method: TypeAlias = Literal["exact", "graph", "disk"]
# What may be asked for: a method, or "auto" for the one that fits.
Ann: TypeAlias = Literal["auto", "exact", "graph", "disk"]

# Values (rows x dimension) up to which exact search answers a query in about 3 ms on one core: what it costs to read
# them once from memory in half precision.
EXACT_VALUES: Final = 2**25
# The share of the machine's memory that the graph may take; the rest is for the model and the page cache.
MEMORY_SHARE: Final = 0.5
# Bytes of a node in the graph beside its vector: two lists of neighbours at the lowest level, some at the upper ones.
NODE_BYTES: Final = 300


def choose(rows: int, dim: int, memory: int | None = None) -> Method:
    """Exact search for small tables, a graph in memory where the machine holds it, an index on disk past that.

    Args:
        rows: Rows of the table.
        dim: Dimension of the vectors.
        memory: Bytes of memory; the machine's if not given.
    """
    if rows * dim <= EXACT_VALUES:
        return "exact"
    available = machine_memory() if memory is None else memory
    return "graph" if graph_bytes(rows, dim) <= MEMORY_SHARE * available else "disk"


def graph_bytes(rows: int, dim: int) -> int:
    """About how many bytes the graph takes, in memory and on the disk."""
    return rows * (2 * dim + NODE_BYTES)


def machine_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
