"""topk against a full stable sort."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from mcip.core.errors import ConfigError, DataError
from mcip.core.topk import topk


def naive(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, indices = [], []
    for query in queries.tolist():
        scores = [sum(a * b for a, b in zip(query, row, strict=True)) for row in gallery.tolist()]
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
        indices.append(order)
        values.append([scores[i] for i in order])
    return torch.tensor(values), torch.tensor(indices)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    k=st.integers(1, 45),
    blocks=st.tuples(st.integers(1, 12), st.integers(1, 50)),
    levels=st.sampled_from([1, 2, 100]),
)
def test_equals_a_full_sort_with_ties_at_the_lower_index(
    seed: int, sizes: tuple[int, int], k: int, blocks: tuple[int, int], levels: int
) -> None:
    # Integers make every similarity exact, and few levels make many ties.
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-levels, levels + 1, (sizes[0], 3), generator=generator).float()
    gallery = torch.randint(-levels, levels + 1, (sizes[1], 3), generator=generator).float()
    values, indices = topk(queries, gallery, k, *blocks)
    expected_values, expected_indices = naive(queries, gallery, k)
    assert values.dtype == torch.float32
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected_indices)
    assert torch.equal(values, expected_values.float())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), width=st.integers(256, 900), k=st.integers(1, 3), levels=st.sampled_from([1, 5, 300])
)
def test_wide_blocks_that_are_searched_by_runs(seed: int, width: int, k: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randint(-levels, levels + 1, (width, 1), generator=generator).float()
    queries = torch.tensor([[1.0], [-1.0], [0.0]])
    values, indices = topk(queries, gallery, k)
    expected = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(indices, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 30),
    levels=st.sampled_from([1, 20, 100_000]),
    order=st.sampled_from(["forwards", "backwards", "rising", "falling"]),
)
def test_later_blocks_change_only_the_rows_that_they_reach(seed: int, k: int, levels: int, order: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randint(-levels, levels + 1, (600, 2), generator=generator).float()
    queries = torch.randint(-2, 3, (9, 2), generator=generator).float()
    if order in ("rising", "falling"):
        # Every block beats the ones before it, or none does.
        gallery = gallery[gallery[:, 0].argsort(descending=order == "falling")]
    parts = [(start, gallery[start : start + 100]) for start in range(0, 600, 100)]
    values, indices = topk(queries, parts[::-1] if order == "backwards" else parts, k, query_block=4, gallery_block=70)
    expected = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(indices, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 70),
    dim=st.sampled_from([3, 64, 511, 768]),
    queries=st.integers(1, 40),
    block=st.integers(1, 70),
)
def test_equal_vectors_tie_wherever_they_stand(seed: int, count: int, dim: int, queries: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randn(3, dim, generator=generator).repeat(count, 1)
    x = torch.randn(queries, dim, generator=generator)
    values, indices = topk(x, gallery, 3 * count, gallery_block=block)
    best = (x @ gallery[:3].T).argsort(dim=1, descending=True)
    expected = best[:, :, None] + 3 * torch.arange(count)
    assert torch.equal(indices, expected.flatten(1))
    assert (values.view(queries, 3, count).diff(dim=2) == 0).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 20), levels=st.sampled_from([1, 3, 1000]))
def test_fewer_neighbours_are_the_first_of_more(seed: int, k: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = (rng.integers(-levels, levels + 1, (rows, 5)) / np.float32(7) for rows in (300, 9))
    few, more = (topk(queries, gallery, count, gallery_block=64) for count in (k, k + 9))
    assert torch.equal(few[0], more[0][:, :k])
    assert torch.equal(few[1], more[1][:, :k])


def test_no_queries_and_no_gallery() -> None:
    x = torch.eye(3)
    values, indices = topk(x[:0], x.repeat(100, 1), 2, gallery_block=50)
    assert values.shape == indices.shape == (0, 2)
    values, indices = topk(x, x[:0], 2)
    assert values.shape == indices.shape == (3, 0)


def test_blocks_may_come_in_any_order_and_size() -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randint(-2, 3, (50, 4), generator=generator).float()
    queries = torch.randint(-2, 3, (6, 4), generator=generator).float()
    parts = [(30, gallery[30:]), (0, gallery[:1]), (1, gallery[1:30])]
    expected = topk(queries, gallery, 7)
    for found in (topk(queries, parts, 7), topk(queries, iter(parts), 7, gallery_block=4)):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_memory_maps_and_arrays(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    gallery: NDArray[Any] = rng.integers(-3, 4, (40, 5)).astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    queries = torch.from_numpy(rng.integers(-3, 4, (4, 5)).astype(np.float32))
    expected = topk(queries, torch.from_numpy(gallery), 6)[1]
    assert torch.equal(topk(queries, mapped, 6, gallery_block=16)[1], expected)
    assert torch.equal(topk(queries.numpy(), gallery[::-1][::-1], 6)[1], expected)


def test_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    gallery, queries = (rng.standard_normal((n, 8)).astype(np.float32) for n in (300, 20))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    distances, indices = NearestNeighbors(n_neighbors=9, metric="cosine").fit(gallery).kneighbors(queries)
    values, found = topk(queries, gallery, 9, query_block=7, gallery_block=64)
    np.testing.assert_array_equal(found.numpy(), indices)
    np.testing.assert_allclose(values.numpy(), 1 - distances, atol=1e-5)


def test_negative_zero_ties_with_zero() -> None:
    queries, gallery = torch.tensor([[1.0]]), torch.tensor([[-0.0], [0.0], [-0.0]])
    assert topk(queries, gallery, 2)[1].tolist() == [[0, 1]]


def test_empty_sides() -> None:
    assert topk(torch.zeros(0, 3), torch.zeros(5, 3), 2)[1].shape == (0, 2)
    assert topk(torch.zeros(4, 3), torch.zeros(0, 3), 2)[1].shape == (4, 0)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="k=0"):
        topk(torch.zeros(1, 2), torch.zeros(1, 2), 0)
    with pytest.raises(DataError, match=re.escape("(3, 5)")):
        topk(torch.zeros(1, 2), torch.zeros(3, 5), 1)
