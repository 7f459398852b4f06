"""Half-precision products select and float32 decides: the result is float32's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from mcip.core import half_selection
from mcip.core.errors import ConfigError
from mcip.core.running_topk import RunningTopK, reaching
from mcip.core.topk import topk

HALVES = st.sampled_from([torch.float16, torch.bfloat16])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of pairs in a small search."""
    monkeypatch.setattr(half_selection, "_PAIRS", 256)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 700),
    k=st.integers(1, 40),
    block=st.integers(1, 400),
    levels=st.sampled_from([1, 3, 2000]),
    dtype=HALVES,
)
def test_equals_float32_with_ties_at_the_lower_index(
    seed: int, rows: int, k: int, block: int, levels: int, dtype: torch.dtype
) -> None:
    # Integers make float32 sums exact; up to 2,000 they are more than bfloat16 can tell apart, and few make many ties.
    generator = torch.Generator().manual_seed(seed)
    gallery = torch.randint(-levels, levels + 1, (rows, 3), generator=generator).float()
    queries = torch.randint(-levels, levels + 1, (7, 3), generator=generator).float()
    expected = topk(queries, gallery, k, 4, block)
    values, indices = topk(queries, gallery, k, 4, block, select=dtype)
    assert torch.equal(values, expected[0])
    assert torch.equal(indices, expected[1])


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 9), scale=st.sampled_from([1e-3, 1e-5, 1e-7]), dtype=HALVES)
def test_near_equal_rows(seed: int, k: int, scale: float, dtype: torch.dtype) -> None:
    # All rows are the same to half precision: only float32 can rank them.
    generator = torch.Generator().manual_seed(seed)
    center = normalize(torch.randn(1, 30, generator=generator))
    gallery = normalize(center + scale * torch.randn(2000, 30, generator=generator))
    gallery = torch.cat([gallery, normalize(torch.randn(3000, 30, generator=generator)), gallery[:50]])
    queries = normalize(center + 0.1 * torch.randn(3, 30, generator=generator))
    scores = torch.stack([(gallery * query).sum(1) for query in queries])
    expected = scores.sort(dim=1, descending=True, stable=True)
    values, indices = topk(queries, gallery, k, gallery_block=1000, select=dtype)
    torch.testing.assert_close(values, expected.values[:, :k], rtol=0, atol=2e-7)
    found = scores.gather(1, indices)
    torch.testing.assert_close(found, expected.values[:, :k], rtol=0, atol=2e-7)
    # What is there twice has one similarity, and the first one comes first.
    everything = topk(queries, gallery, len(gallery), gallery_block=1000, select=dtype)
    assert torch.equal(values, everything[0][:, :k])
    assert torch.equal(indices, everything[1][:, :k])
    place = everything[1].argsort(1)
    assert (place[:, 5000:] > place[:, :50]).all()
    twins = everything[0].gather(1, place)
    assert torch.equal(twins[:, 5000:], twins[:, :50])


@pytest.mark.parametrize("order", ["forwards", "backwards", "rising"])
def test_few_pairs_are_computed_again(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = normalize(torch.randn(20_000, 64, generator=generator))
    queries = normalize(torch.randn(8, 64, generator=generator))
    if order == "rising":
        gallery = gallery[(gallery @ queries[0]).argsort()]
    computed = 0
    pair_products = half_selection._pair_products

    def counted(rows: torch.Tensor, block: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        nonlocal computed
        computed += len(left)
        return pair_products(rows, block, left, right)

    monkeypatch.setattr(half_selection, "_pair_products", counted)
    parts = [(start, gallery[start : start + 2000]) for start in range(0, 20_000, 2000)]
    found = topk(queries, parts[::-1] if order == "backwards" else parts, 10, select=torch.float16)
    expected = topk(queries, gallery, 10)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=2e-7)
    if order != "rising":
        assert computed < 8 * 400


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_error_stays_within_the_bound(dtype: torch.dtype) -> None:
    # The bound decides what may be dropped, so it has to hold where roundings all point one way, too.
    rows = torch.full((1, 256), 1.0 + 2**-9 - 2**-20)
    block = torch.cat([rows, -rows, normalize(torch.randn(100, 256, generator=torch.Generator().manual_seed(1)))])
    search = half_selection.HalfSelection(rows, RunningTopK(1, 1, rows.device), dtype)
    for row in block.split(1):
        prepared = search.prepare(row)
        search.best.values = torch.zeros(1, 1)
        search.best.full = True
        error = -float(search._least(torch.zeros(1, 32), prepared))
        half = float(rows.to(dtype).double() @ row.to(dtype).double().T)
        assert abs(half - float(rows.double() @ row.double().T)) <= error


def test_what_is_too_large_for_float16() -> None:
    gallery = torch.tensor([[1e6, 0.0], [2e6, 0.0], [0.0, 1.0]])
    assert topk(gallery, gallery, 2, select=torch.float16)[1].tolist() == topk(gallery, gallery, 2)[1].tolist()


def test_runs_with_something_that_is_no_number_are_looked_at() -> None:
    scores = torch.zeros(1, 256)
    scores[0, 7] = torch.nan
    pairs = reaching(scores, torch.ones(1, 1), above=True)
    assert pairs is not None
    assert pairs[1].tolist() == [7]


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ConfigError, match="int8"):
        topk(torch.eye(2), torch.eye(2), 1, select=torch.int8)
