"""The revisited protocol and the diagnostics of the joint space against loops and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcip.core.errors import ConfigError, DataError
from mcip.metrics import alignment, modality_gap, revisited_average_precisions, revisited_map, uniformity


def naive_revisited(scores: NDArray[Any], relevant: set[int], ignored: set[int]) -> float:
    order = [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if i not in ignored]
    if not relevant:
        return math.nan
    area, found = 0.0, 0
    for rank, item in enumerate(order):
        if item in relevant:
            left = found / rank if rank else 1.0
            found += 1
            area += (left + found / (rank + 1)) / 2 / len(relevant)
    return area


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 100]))
def test_revisited_equals_a_loop(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.integers(-levels, levels + 1, (5, 3)).astype(np.float32)
    gallery = rng.integers(-levels, levels + 1, (25, 3)).astype(np.float32)
    truth = []
    for _ in range(5):
        shuffled = rng.permutation(25)
        cuts = np.sort(rng.integers(0, 15, 3))
        easy, hard, junk = np.split(shuffled[: cuts[2]], cuts[:2])
        truth.append({"easy": easy, "hard": hard.tolist(), "junk": junk, "bbx": [0, 0, 1, 1]})
    kinds = {
        "easy": (("easy",), ("hard", "junk")),
        "medium": (("easy", "hard"), ("junk",)),
        "hard": (("hard",), ("easy", "junk")),
    }
    for difficulty, (good, bad) in kinds.items():
        expected = [
            naive_revisited(gallery @ q, {i for g in good for i in t[g]}, {i for b in bad for i in t[b]})
            for q, t in zip(queries, truth, strict=True)
        ]
        found = revisited_average_precisions(queries, gallery, truth, difficulty)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=1e-12)
        known = [value for value in expected if not math.isnan(value)]
        mean = revisited_map(torch.from_numpy(queries), gallery, truth, difficulty)  # type: ignore[arg-type]
        assert mean == pytest.approx(np.mean(known) if known else math.nan, nan_ok=True)


def test_revisited_worked_out_by_hand() -> None:
    # Ranking 0, 1, 2, 3; medium takes junk 0 out: relevant at ranks 0 and 2: ((1 + 1) / 2 + (1/2 + 2/3) / 2) / 2.
    gallery = np.array([[0.9], [0.8], [0.7], [0.6]])
    truth = [{"easy": [1], "hard": [3], "junk": [0]}]
    one = np.ones((1, 1))
    assert revisited_map(one, gallery, truth) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert revisited_map(one, gallery, truth, "easy") == 1.0
    assert revisited_map(one, gallery, truth, "hard") == pytest.approx((0 + 1 / 2) / 2)


def test_revisited_bad_arguments() -> None:
    x = np.eye(3)
    truth: dict[str, list[int]] = {"easy": [0], "hard": [], "junk": []}
    with pytest.raises(ConfigError, match="difficulty"):
        revisited_map(x, x, [truth] * 3, "middle")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 queries have 1"):
        revisited_map(x, x, [truth])
    with pytest.raises(DataError, match='query 1 has no "junk"'):
        revisited_map(x, x, [truth, {"easy": [], "hard": []}, truth])
    with pytest.raises(DataError, match="query 0 names image 3"):
        revisited_map(x, x, [{**truth, "junk": [3]}] * 3)
    assert math.isnan(revisited_map(x, x, [{**truth, "easy": []}] * 3))


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float64]:
    x: NDArray[np.float64] = rng.standard_normal((rows, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def test_alignment_and_uniformity_equal_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcip.metrics.space._BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    x, y = unit(rng, 40, 6), unit(rng, 40, 6)
    for alpha in (1.0, 2.0):
        expected = np.mean([np.linalg.norm(a - b) ** alpha for a, b in zip(x, y, strict=True)])
        assert alignment(x, y, alpha) == pytest.approx(expected, rel=1e-6)
    pairs = [math.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(40) for j in range(40) if i != j]
    assert uniformity(x) == pytest.approx(math.log(np.mean(pairs)), rel=1e-6)
    assert uniformity(torch.from_numpy(x), 2.0) == pytest.approx(
        torch.nn.functional.pdist(torch.from_numpy(x)).square().mul(-2).exp().mean().log().item(), rel=1e-6
    )


def test_closed_forms() -> None:
    same = np.ones((5, 4)) / 2
    assert alignment(same, same) == 0.0
    assert uniformity(same) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)


def test_modality_gap_of_apart_and_equal_clouds() -> None:
    rng = np.random.default_rng(0)
    images, texts = 0.1 * rng.standard_normal((2, 400, 8))
    gap = modality_gap(images + np.eye(8)[0], texts[:60] - np.eye(8)[0])
    assert gap.distance == pytest.approx(2.0, abs=0.05)
    assert gap.probe_accuracy == 1.0
    assert modality_gap(images, texts).probe_accuracy == pytest.approx(0.5, abs=0.1)
    assert modality_gap(images, texts, seed=1) == modality_gap(torch.from_numpy(images), texts, seed=1)


def test_space_bad_arguments() -> None:
    x = np.eye(3)
    with pytest.raises(DataError, match="two rows"):
        modality_gap(x[:1], x)
    with pytest.raises(DataError, match="one model"):
        modality_gap(x, x[:, :2])
    with pytest.raises(DataError, match="pairs"):
        alignment(x, x[:2])
    with pytest.raises(DataError, match="at least two"):
        uniformity(x[:1])
    with pytest.raises(ConfigError, match="t is 0"):
        uniformity(x, 0)
