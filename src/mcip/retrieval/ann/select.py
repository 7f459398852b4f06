"""Which method searches a table, by its size and the memory that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

Method: TypeAlias = Literal["exact", "graph", "disk", "milvus"]
# What may be requested: a method, or "auto" for the one that fits.
Ann: TypeAlias = Literal["auto", "exact", "graph", "disk"]

# Values (rows x dimension) up to which exact search answers a query in about 3 ms on one core: what it costs to read
# them once from memory in half precision.
EXACT_VALUES: Final = 2**25
# The share of the memory that the graph may take; the rest is for the model and the page cache.
MEMORY_SHARE: Final = 0.5
# Bits per dimension of a vector in the graph, and bytes of a node beside it: neighbours at the lowest level, some at
# the upper ones, and factors of the estimated products.
BITS: Final = 5
NODE_BYTES: Final = 180


def choose(rows: int, dim: int, memory: int | None = None) -> Method:
    """Exact search for small tables, a graph in memory where it fits, an index on disk past that.

    Args:
        rows: Rows of the table.
        dim: Dimension of the vectors.
        memory: Bytes of memory; `available_memory()` if not given.
    """
    if rows * dim <= EXACT_VALUES:
        return "exact"
    available = available_memory() if memory is None else memory
    return "graph" if graph_bytes(rows, dim) <= MEMORY_SHARE * available else "disk"


def fits_in_memory(rows: int, dim: int, memory: int | None = None) -> bool:
    """Whether the vectors that a graph is searched with may be in memory beside it.

    Args:
        rows: Vectors, in half precision.
        dim: Their dimension.
        memory: Bytes of memory; `available_memory()` if not given.
    """
    available = available_memory() if memory is None else memory
    return graph_bytes(rows, dim) + 2 * rows * dim <= MEMORY_SHARE * available


def graph_bytes(rows: int, dim: int) -> int:
    """About how many bytes the graph takes, in memory and on the disk."""
    return rows * (BITS * dim // 8 + NODE_BYTES)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's memory, or the least limit of its control groups.

    Args:
        root: Where `/proc` and `/sys` lie.
    """
    import psutil  # type: ignore[import-untyped]

    machine: int = psutil.virtual_memory().total
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The memory limits of this process's control groups and of all groups around them, of version 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the group's path may be the host's, which is not mounted: then only the mount's root is there.
        path = PurePosixPath(group.lstrip("/"))
        for folder in dict.fromkeys([path, *path.parents, PurePosixPath()]):
            try:
                limit = (mount / folder / name).read_text().strip()
            except OSError:
                continue
            if limit.isdecimal():
                yield int(limit)
