"""Exact search equals a full sort, for every k and with many equal vectors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcip.retrieval.ann.exact import exact_search, products

from .cloud import cloud, full_sort


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), count=st.integers(0, 60), queries=st.integers(1, 12), k=st.integers(1, 70), data=st.data()
)
def test_exact_search_is_a_full_sort(seed: int, count: int, queries: int, k: int, data: st.DataObject) -> None:
    vectors, query_vectors = cloud(60, seed)[:count], cloud(queries, seed + 1)
    subset = None
    if data.draw(st.booleans()):
        subset = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, count - 1)))) if count else []), np.int64)
    scores, found = exact_search(vectors.astype(np.float16), query_vectors, k, subset)
    numbers = list(range(count)) if subset is None else subset.tolist()
    for query, row_scores, row in zip(query_vectors, scores, found, strict=True):
        expected = full_sort(vectors, query, k, numbers)
        cosines = [float(vectors[number].astype(np.float16).astype(np.float32) @ query) for number in expected]
        np.testing.assert_allclose(row_scores, cosines, atol=1e-6)
        assert len(set(row.tolist())) == len(expected)
        assert set(row.tolist()) <= set(numbers)


@pytest.mark.parametrize("queries", [1, 12])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("torch", [False, True])
def test_equal_vectors_come_in_the_order_of_their_numbers_for_every_k(
    queries: int, filtered: bool, torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    # Each vector 150 times, far more often than there are spare candidates.
    rng = np.random.default_rng(0)
    vectors = np.repeat(cloud(4), 150, axis=0)[rng.permutation(600)].astype(np.float16)
    query_vectors = cloud(queries, 5)
    subset = np.arange(0, 600, 3) if filtered else None
    scores, found = exact_search(vectors, query_vectors, 600, subset)
    for row_scores, row in zip(scores, found, strict=True):
        ties = row_scores[1:] == row_scores[:-1]
        assert ties.sum() == len(row) - 4
        assert np.all(row[1:][ties] > row[:-1][ties])
    for k in (1, 5, 60, 199):
        some_scores, some = exact_search(vectors, query_vectors, k, subset)
        np.testing.assert_array_equal(some, found[:, :k])
        np.testing.assert_array_equal(some_scores, scores[:, :k])


@pytest.mark.parametrize("dim", [1, 7, 64, 129, 768, 1025])
def test_a_product_does_not_depend_on_the_vectors_beside_it(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors, query = rng.standard_normal((300, dim)).astype(np.float16), rng.standard_normal(dim).astype(np.float32)
    whole = products(vectors, query)
    for size in (1, 2, 3, 7, 50):
        np.testing.assert_array_equal(products(vectors[100 : 100 + size], query), whole[100 : 100 + size])


def test_a_query_of_any_length_is_searched() -> None:
    vectors, query = cloud(100).astype(np.float16), cloud(1, 3)
    _, expected = exact_search(vectors, query, 10)
    for length in (1e-6, 1e6):
        np.testing.assert_array_equal(exact_search(vectors, query * np.float32(length), 10)[1], expected)


def test_products_of_half_precision_are_those_of_the_same_numbers_in_single_precision() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(-1, 64)
    query = cloud(1, 3)[0].repeat(3)[:64]
    np.testing.assert_array_equal(products(halves, query), products(halves.astype(np.float32), query))


@pytest.mark.parametrize("queries", [1, 2, 20])
def test_numpy_finds_what_pytorch_does(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, query_vectors = cloud(3000).astype(np.float16), 3 * cloud(queries, 4)
    subset = np.arange(0, 3000, 2)
    by_torch = [exact_search(vectors, query_vectors, 30, some) for some in (None, subset)]
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for (scores, found), some in zip(by_torch, (None, subset), strict=True):
        other_scores, other = exact_search(vectors, query_vectors, 30, some)
        np.testing.assert_array_equal(other, found)
        np.testing.assert_array_equal(other_scores, scores)
        assert "torch" not in sys.modules
