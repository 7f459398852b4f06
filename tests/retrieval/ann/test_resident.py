"""Mapped vectors are brought into memory, where there is room for them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip.retrieval.ann.resident import touch_pages
from mcip.retrieval.index import Index
from mcip.retrieval.table import IndexTable

from .cloud import probes


def resident_kb(path: Path) -> int:
    """Kilobytes of a mapped file that are in the memory of this process."""
    mapped = Path("/proc/self/smaps").read_text().partition(str(path))[2]
    found = re.search(r"Rss: +(\d+)", mapped)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for what is mapped")
def test_every_page_is_in_memory_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    np.ones((5000, 512), np.float16).tofile(path)
    vectors = np.asarray(np.memmap(path, np.float16, "c", shape=(5000, 512)))
    touch_pages(vectors).join()
    assert resident_kb(path) == 5000
    assert float(vectors.max()) == 1


@pytest.mark.parametrize(("ann", "memory", "expected"), [("graph", None, 1), ("graph", 1, 0), ("exact", None, 0)])
def test_vectors_of_a_graph_are_touched_where_there_is_room(
    ann: Any, memory: int | None, expected: int, table: IndexTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[int] = []
    monkeypatch.setattr("mcip.retrieval.ann.opening.touch_pages", lambda vectors: touched.append(len(vectors)))
    if memory is not None:
        monkeypatch.setattr("mcip.retrieval.ann.select.available_memory", lambda: memory)
    index = Index(table.uri, ann=ann, probe_texts=probes)
    assert touched == [600] * expected
    assert index.search_vectors(probes()[:1], "text", 3)[0]
