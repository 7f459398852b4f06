"""The graph is built, extended, and searched from its file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip.core.errors import ArtefactError
from mcip.retrieval.ann import hnsw
from mcip.retrieval.ann.select import graph_bytes

from .cloud import DIM, cloud


def recall(graph: hnsw.Graph, vectors: np.ndarray, k: int = 10) -> float:
    """The share of the k nearest of 50 vectors that a search for some more finds."""
    found = 0
    for query in cloud(50, 7):
        nearest = np.argsort(-(vectors.astype(np.float32) @ query))[:k]
        found += len(set(graph.search(query, k + 6, 64).tolist()) & set(nearest.tolist()))
    return found / (50 * k)


@pytest.mark.parametrize("counts", [(500,), (450, 470, 470, 500), (100, 500)])
def test_a_graph_that_is_extended_finds_what_one_built_at_once_does(counts: tuple[int, ...], tmp_path: Path) -> None:
    vectors, start = cloud(500).astype(np.float16), None
    for count in counts:
        added: list[int] = []
        hnsw.grow_graph(vectors[:count], tmp_path / str(count), start, added.append)
        assert sum(added) == count
        start = tmp_path / str(count)
    graph = hnsw.Graph(tmp_path / "500", DIM)
    assert len(graph) == 500
    assert recall(graph, vectors) > 0.95
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, counts))


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_graph_that_cannot_be_read_is_built_again(content: bytes, tmp_path: Path) -> None:
    vectors = cloud(100).astype(np.float16)
    (tmp_path / "start").write_bytes(content)
    with pytest.raises(ArtefactError, match="start is damaged"):
        hnsw.Graph(tmp_path / "start", DIM)
    hnsw.grow_graph(vectors, tmp_path / "100", tmp_path / "start")
    assert len(hnsw.Graph(tmp_path / "100", DIM)) == 100


def test_a_graph_of_other_vectors_is_not_extended(tmp_path: Path) -> None:
    wide = np.eye(100, 96, dtype=np.float16)
    hnsw.grow_graph(wide, tmp_path / "wide")
    with pytest.raises(ArtefactError, match="96 dimensions"):
        hnsw.Graph(tmp_path / "wide", DIM)
    for vectors in (cloud(100), cloud(90)):
        hnsw.grow_graph(vectors.astype(np.float16), tmp_path / "new", tmp_path / "wide")
        assert len(hnsw.Graph(tmp_path / "new", DIM)) == len(vectors)


@pytest.mark.parametrize("count", [1, 2, 500])
def test_as_many_neighbours_as_there_are(count: int, tmp_path: Path) -> None:
    vectors = cloud(count).astype(np.float16)
    hnsw.grow_graph(vectors, tmp_path / "graph")
    keys = hnsw.Graph(tmp_path / "graph", DIM).search(cloud(1, 3)[0], count + 5, 16)
    assert sorted(keys.tolist()) == list(range(count))


def test_a_graph_takes_the_memory_that_it_is_chosen_by(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 768)).astype(np.float16)
    hnsw.grow_graph(vectors, tmp_path / "graph")
    size = (tmp_path / "graph").stat().st_size
    assert size == pytest.approx(graph_bytes(1000, 768), rel=0.1)
    assert size < 1000 * 1000


def test_a_share_of_new_nodes_decides_between_adding_and_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = cloud(400).astype(np.float16)
    built: list[int] = []
    build = hnsw._built

    def counting(some: np.ndarray, *others: Any) -> Any:
        built.append(len(some))
        return build(some, *others)

    monkeypatch.setattr(hnsw, "_built", counting)
    for first in (380, 300):
        hnsw.grow_graph(vectors[:first], tmp_path / str(first))
        hnsw.grow_graph(vectors, tmp_path / "all", tmp_path / str(first))
        assert len(hnsw.Graph(tmp_path / "all", DIM)) == 400
    # 20 of 400 are added; 100 are not.
    assert built == [380, 300, 400]


def test_threads_find_the_same(tmp_path: Path) -> None:
    vectors, queries = cloud(500).astype(np.float16), cloud(200, 5)
    hnsw.grow_graph(vectors, tmp_path / "graph")
    graph = hnsw.Graph(tmp_path / "graph", DIM)

    def search(query: np.ndarray) -> list[int]:
        return [int(number) for number in graph.search(query, 20, 32)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search, queries)) == list(map(search, queries))
