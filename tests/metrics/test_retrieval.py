"""Mean average precision and recall against loops, scikit-learn and values worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from mcip.core.errors import ConfigError, DataError
from mcip.metrics import average_precisions, hits_at_k, recall_at_k, retrieval_map


def ranking(scores: list[float], removed: int | None, drop_first: bool) -> list[int]:
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return order[1:] if drop_first else [i for i in order if i != removed]


def naive(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    labels: list[Any],
    gallery_labels: list[Any],
    exclude_self: bool,
    drop_first: bool,
    at: int | None,
    ks: tuple[int, ...],
) -> tuple[list[float], dict[int, float]]:
    precisions, reached = [], []
    for i, query in enumerate(queries):
        order = ranking([float(query @ row) for row in gallery], i if exclude_self else None, drop_first)
        hits = [gallery_labels[j] == labels[i] for j in order]
        relevant = sum(hits)
        if relevant == 0:
            precisions.append(math.nan)
            continue
        cut = len(hits) if at is None else at
        total = sum(sum(hits[: r + 1]) / (r + 1) for r in range(min(cut, len(hits))) if hits[r])
        precisions.append(total / min(relevant, cut))
        reached.append([any(hits[:k]) for k in ks])
    recall = {k: float(np.mean([row[n] for row in reached])) if reached else math.nan for n, k in enumerate(ks)}
    return precisions, recall


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 30)),
    classes=st.integers(1, 6),
    levels=st.sampled_from([0, 1, 50]),
    protocol=st.sampled_from(["keep", "exclude_self", "drop_first"]),
    at=st.sampled_from([None, 1, 3, 100]),
)
def test_equals_naive_loops(
    seed: int, sizes: tuple[int, int], classes: int, levels: int, protocol: str, at: int | None
) -> None:
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-levels, levels + 1, (sizes[1], 3)).astype(np.float32)
    gallery_labels = rng.integers(0, classes, sizes[1])
    if protocol == "keep":
        queries = rng.integers(-levels, levels + 1, (sizes[0], 3)).astype(np.float32)
        labels = rng.integers(0, classes + 1, sizes[0])
    else:
        queries, labels = gallery[: sizes[0]], gallery_labels[: sizes[0]]
    flags: dict[str, Any] = {"exclude_self": protocol == "exclude_self", "drop_first": protocol == "drop_first"}
    expected, recall = naive(queries, gallery, labels.tolist(), gallery_labels.tolist(), at=at, ks=(1, 2, 8), **flags)
    found = average_precisions(queries, gallery, labels, gallery_labels, at=at, **flags)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-12)
    mean = retrieval_map(torch.from_numpy(queries), gallery, labels, gallery_labels, at=at, **flags)
    known = [value for value in expected if not math.isnan(value)]
    assert mean == pytest.approx(np.mean(known) if known else math.nan, nan_ok=True)
    assert recall_at_k(queries, gallery, labels, gallery_labels, (1, 2, 8), **flags) == pytest.approx(
        recall, nan_ok=True
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 20),
    levels=st.sampled_from([0, 1, 50]),
    at=st.sampled_from([None, 1, 3, 100]),
)
def test_queries_are_removed_where_they_are_in_the_gallery(seed: int, size: int, levels: int, at: int | None) -> None:
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-levels, levels + 1, (size, 3)).astype(np.float32)
    gallery_labels = rng.integers(0, 3, size)
    query_rows = rng.integers(-1, size, 7)
    queries, labels = gallery[query_rows], gallery_labels[query_rows]
    expected, reached = [], []
    for row, query, label in zip(query_rows.tolist(), queries, labels, strict=True):
        rest = np.delete(np.arange(size), row) if row >= 0 else np.arange(size)
        arguments = (query[None], gallery[rest], [label], gallery_labels[rest].tolist(), False, False, at, (1, 2, 30))
        precisions, recall = naive(*arguments) if len(rest) else ([math.nan], dict.fromkeys((1, 2, 30), math.nan))
        expected += precisions
        reached.append(list(recall.values()))
    found = average_precisions(queries, gallery, labels, gallery_labels, True, at, self_rows=query_rows)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    hits = hits_at_k(queries, gallery, labels, gallery_labels, (1, 2, 30), True, self_rows=query_rows)
    np.testing.assert_array_equal(hits, reached)


def test_many_blocks_and_many_relevant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcip.metrics.ranks._BLOCK_VALUES", 2000)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 8)).astype(np.float32)
    x[60:90] = x[:30]
    labels = np.array([0] * 80 + list(range(1, 21)) * 2)
    expected, _ = naive(x, x, labels.tolist(), labels.tolist(), True, False, None, (1,))
    np.testing.assert_allclose(average_precisions(x, x, labels, labels, True), expected, atol=1e-6)


def test_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((20, 16)), rng.standard_normal((200, 16))
    labels, gallery_labels = rng.integers(0, 5, 20), rng.integers(0, 5, 200)
    expected = [
        average_precision_score(gallery_labels == label, gallery @ q) for q, label in zip(queries, labels, strict=True)
    ]
    np.testing.assert_allclose(average_precisions(queries, gallery, labels, gallery_labels), expected, atol=1e-6)


def test_worked_out_by_hand() -> None:
    # Ranking of the query: items 2, 0, 3, 1; relevant at ranks 1 and 4: (1/1 + 2/4) / 2.
    gallery = np.array([[0.8], [0.1], [0.9], [0.5]])
    assert retrieval_map(np.ones((1, 1)), gallery, ["a"], ["b", "a", "a", "c"]) == 0.75
    assert retrieval_map(np.ones((1, 1)), gallery, ["a"], ["b", "a", "a", "c"], at=2) == 0.5
    assert retrieval_map(np.ones((1, 1)), gallery, ["a"], ["b", "a", "a", "c"], drop_first=True) == pytest.approx(1 / 3)


def test_kept_query_guarantees_a_tenth_in_gpr1200s_shape() -> None:
    # Every image is orthogonal to all others of its class: only its own hit is sure.
    x = np.eye(40, dtype=np.float32)
    labels = np.repeat(np.arange(4), 10)
    assert average_precisions(x, x, labels, labels).min() >= 0.1


def test_collapsed_embeddings_rank_by_index() -> None:
    x = np.ones((6, 2), np.float32)
    labels = [0, 1, 0, 1, 0, 1]
    first, second = (1 + 2 / 3 + 3 / 5) / 3, (1 / 2 + 2 / 4 + 3 / 6) / 3
    np.testing.assert_allclose(average_precisions(x, x, labels, labels), [first, second] * 3)


def test_none_is_relevant_to_nothing_and_empty_relevance_is_left_out() -> None:
    x = np.eye(4, dtype=np.float32)
    labels = ["a", None, None, "b"]
    found = average_precisions(x, x, labels, labels)
    assert np.isnan(found[[1, 2]]).all()
    assert retrieval_map(x, x, labels, labels) == 1.0
    assert math.isnan(retrieval_map(x, x, labels, labels, exclude_self=True))
    assert recall_at_k(x, x, labels, labels, (1, 2)) == {1: 1.0, 2: 1.0}


def test_labels_of_every_kind_give_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4)).astype(np.float32)
    numbers = rng.integers(0, 4, 30)
    expected = retrieval_map(x, x, numbers, numbers, True)
    for labels in (numbers.tolist(), torch.from_numpy(numbers), [str(n) for n in numbers], numbers.astype("U2")):
        assert retrieval_map(x, x, labels, labels, True) == expected


def test_half_precision_and_memory_mapped_galleries(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (40, 3)).astype(np.float16)
    labels = rng.integers(0, 4, 40)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = retrieval_map(x.astype(np.float32), x.astype(np.float32), labels, labels)
    assert retrieval_map(mapped, mapped, labels, labels) == expected
    assert retrieval_map(torch.from_numpy(x), torch.from_numpy(x), labels, labels) == expected


def test_bad_arguments() -> None:
    x = np.eye(3)
    with pytest.raises(DataError, match="3 query embeddings have 2 labels"):
        retrieval_map(x, x, [1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="dimension 3, the gallery 2"):
        retrieval_map(x, x[:, :2], [1, 2, 3], [1, 2, 3])
    with pytest.raises(DataError, match="gallery is empty"):
        retrieval_map(x, x[:0], [1, 2, 3], [])
    with pytest.raises(DataError, match="never match"):
        retrieval_map(x, x, [1, 2, 3], ["1", "2", "3"])
    with pytest.raises(DataError, match="exclude_self"):
        retrieval_map(x, x[:2], [1, 2, 3], [1, 2], exclude_self=True)
    with pytest.raises(DataError, match="3 indices from -1"):
        retrieval_map(x, x[:2], [1, 2, 3], [1, 2], exclude_self=True, self_rows=[0, 1, 2])
    with pytest.raises(DataError, match="3 indices from -1"):
        retrieval_map(x, x, [1, 2, 3], [1, 2, 3], exclude_self=True, self_rows=[0, 1])
    with pytest.raises(ConfigError, match="exclude_self is not given"):
        retrieval_map(x, x, [1, 2, 3], [1, 2, 3], self_rows=[0, 1, 2])
    with pytest.raises(ConfigError, match="one of them"):
        retrieval_map(x, x, [1, 2, 3], [1, 2, 3], exclude_self=True, drop_first=True)
    with pytest.raises(ConfigError, match="at is 0"):
        retrieval_map(x, x, [1, 2, 3], [1, 2, 3], at=0)
    with pytest.raises(ConfigError, match="ks"):
        recall_at_k(x, x, [1, 2, 3], [1, 2, 3], ())
