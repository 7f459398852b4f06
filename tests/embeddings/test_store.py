"""The embeddings artefact: shards in, ids and vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.embeddings.store import KIND, Embeddings, shard_is_whole, write_shard

Vectors: TypeAlias = NDArray[np.float32]


def make(folder: Path, sizes: list[int], dim: int = 3, dtype: str = "float32") -> Vectors:
    artefact = Artefact.begin(folder, KIND, {})
    vectors = np.random.default_rng(0).standard_normal((sum(sizes), dim)).astype(dtype)
    start = 0
    for shard, size in enumerate(sizes):
        ids = [f"image {row}" for row in range(start, start + size)]
        write_shard(
            folder, shard, vectors[start : start + size], ids, [(f"broken {shard}", "truncated")] * (shard == 1)
        )
        start += size
    artefact.finish(dim=dim)
    return vectors


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (7, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_vectors_are_a_file_of_numpy(tmp_path: Path, shape: tuple[int, int], order: Literal["C", "F"]) -> None:
    vectors = np.asarray(np.random.default_rng(0).standard_normal(shape), np.float32, order)
    write_shard(tmp_path, 0, vectors, [str(row) for row in range(len(vectors))])
    found = np.load(tmp_path / "vectors-00000.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shards_read_back(tmp_path: Path, dtype: str) -> None:
    vectors = make(tmp_path, [4, 2, 0, 3], dtype=dtype)
    found = Embeddings(tmp_path)
    assert (len(found), found.dim) == (9, 3)
    assert found.ids == [f"image {row}" for row in range(9)]
    assert found.unreadable == {"broken 1": "truncated"}
    assert found.array().dtype == np.float32
    np.testing.assert_array_equal(found.array(), vectors.astype(np.float32))
    blocks = list(found.blocks())
    assert [start for start, _ in blocks] == [0, 4, 6, 6]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert isinstance(found.shards[0], np.memmap)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embeddings, Vectors]:
    folder = tmp_path_factory.mktemp("embeddings")
    vectors = make(folder, [4, 2, 0, 3])
    return Embeddings(folder), vectors


@given(rows=st.lists(st.integers(0, 8), max_size=20))
def test_take_is_indexing(made: tuple[Embeddings, Vectors], rows: list[int]) -> None:
    np.testing.assert_array_equal(made[0].take(rows), made[1][np.array(rows, int)])


def test_a_shard_counts_once_its_rows_are_there(tmp_path: Path) -> None:
    make(tmp_path, [2])
    (tmp_path / "vectors-00001.npy").write_bytes(b"")
    assert shard_is_whole(tmp_path, 0)
    assert not shard_is_whole(tmp_path, 1)


def test_a_cut_off_shard_is_named(tmp_path: Path) -> None:
    make(tmp_path, [50, 50])
    path = tmp_path / "vectors-00001.npy"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtefactError, match=r"vectors-00001\.npy is damaged: .* run what makes it again"):
        Embeddings(tmp_path)


def test_cut_off_rows_are_named(tmp_path: Path) -> None:
    make(tmp_path, [50, 50])
    path = tmp_path / "rows-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtefactError, match=r"rows-00001\.parquet is damaged: .* run what makes it again"):
        Embeddings(tmp_path)


def test_what_is_not_complete_is_refused(tmp_path: Path) -> None:
    Artefact.begin(tmp_path, KIND, {})
    with pytest.raises(ArtefactError, match="not complete"):
        Embeddings(tmp_path)
