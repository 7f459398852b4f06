"""The graph grows in steps, and is searched from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcip.retrieval.ann import hnsw

from .cloud import DIM, cloud


def test_graph_grows_as_if_built_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "_STEP", 100)
    monkeypatch.setattr(hnsw, "_BLOCK", 50)
    vectors, start = cloud(500).astype(np.float16), None
    written: list[str] = []
    for count in (230, 230, 500):
        added: list[int] = []
        for path in hnsw.grow_graph(vectors[:count], lambda nodes: tmp_path / str(nodes), start, added.append):
            start = path
            written.append(path.name)
        assert sum(added) == count
    assert written == ["100", "200", "230", "330", "430", "500"]
    grown = hnsw.Graph(tmp_path / "500", DIM)
    assert len(grown) == 500
    for number in (0, 229, 230, 499):
        assert number in grown.search(vectors[number].astype(np.float32), 3, 128)


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_graph_that_cannot_be_read_is_built_again(content: bytes, tmp_path: Path) -> None:
    vectors = cloud(100).astype(np.float16)
    (tmp_path / "start").write_bytes(content)
    written = list(hnsw.grow_graph(vectors, lambda nodes: tmp_path / str(nodes), tmp_path / "start"))
    assert written == [tmp_path / "100"]
    assert len(hnsw.Graph(tmp_path / "100", DIM)) == 100


def test_wider_search_for_more_neighbours(tmp_path: Path) -> None:
    vectors = cloud(500).astype(np.float16)
    (path,) = hnsw.grow_graph(vectors, lambda nodes: tmp_path / str(nodes))
    keys = hnsw.Graph(path, DIM).search(vectors[0].astype(np.float32), 300, 32)
    assert len(set(keys.tolist())) == 300
