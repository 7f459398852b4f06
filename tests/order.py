"""Which tests each of several processes starts with: those that take longest, so that none is left to the end."""

from __future__ import annotations

from itertools import chain
from typing import Final

import pytest

# Modules that take longest; a process has each group whole, since their tests share a server.
LONG: Final = (
    ("test_benchmarks.py", "stages/test_improve.py", "server/test_processes.py"),
    ("test_milvus.py", "test_milvus_external.py", "test_milvus_filters.py", "retrieval/test_cluster.py"),
    ("test_fault_injection.py", "test_examples.py", "stages/test_tune_processes.py", "stages/test_align_processes.py"),
)


def by_process(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """The tests in another order: equal parts of them, one after the other, are what the processes start with."""
    long: list[list[pytest.Item]] = [[] for _ in range(processes)]
    short: list[pytest.Item] = []
    for item in items:
        module = item.nodeid.partition("::")[0]
        group = next((number for number, names in enumerate(LONG) if module.endswith(names)), None)
        (short if group is None else long[group % processes]).append(item)
    size = -(-len(items) // processes)
    for part in long:
        fill = max(0, size - len(part))
        part += short[:fill]
        del short[:fill]
    return list(chain(*long, short))
