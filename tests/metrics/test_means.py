"""Means over queries and their bootstrap intervals."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from mcip.core.errors import ConfigError
from mcip.metrics import (
    bootstrap_interval,
    cross_modal_hits,
    cross_modal_recall,
    hits_at_k,
    knn_accuracy,
    knn_hits,
    recall_at_k,
    top_accuracy,
    top_hits,
)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).beta(2, 5, 400)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    found = bootstrap_interval(values, resamples=20_000)
    np.testing.assert_allclose(found, expected, atol=3e-4)
    assert found[0] < values.mean() < found[1]


def test_interval_of_hits_is_that_of_the_binomial() -> None:
    hits = np.repeat([1.0, 0.0], [300, 700])
    spread = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    np.testing.assert_allclose(bootstrap_interval(hits, resamples=5000), [0.3 - spread, 0.3 + spread], atol=2e-3)
    narrow = bootstrap_interval(hits, confidence=0.5)
    assert bootstrap_interval(hits)[0] < narrow[0] < 0.3 < narrow[1] < bootstrap_interval(hits)[1]


def test_interval_leaves_out_nan_and_is_the_same_for_a_seed() -> None:
    values = np.array([0.2, 0.4, 0.9, 0.1])
    with_gaps = np.array([0.2, math.nan, 0.4, 0.9, 0.1, math.nan])
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(with_gaps, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([math.nan])))
    for wrong in ({"confidence": 1.0}, {"confidence": 0.0}, {"resamples": 0}):
        with pytest.raises(ConfigError, match="confidence"):
            bootstrap_interval(values, **wrong)


def test_metrics_are_the_means_of_the_values_of_their_queries() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 60, 5)).astype(np.float32)
    labels, others = rng.integers(0, 4, (2, 60))
    ks = (1, 3)
    pairs = [
        (hits_at_k(x, y, labels, others, ks), recall_at_k(x, y, labels, others, ks)),
        (knn_hits(x, labels, y, others, tops=ks), knn_accuracy(x, labels, y, others, tops=ks)),
        (top_hits(others[:, None] % 2, labels, (1,)), top_accuracy(others % 2, labels, (1,))),
        (cross_modal_hits(x, y, np.arange(60), ks), cross_modal_recall(x, y, np.arange(60), ks)),
    ]
    for hits, shares in pairs:
        assert hits.shape == (60, len(shares))
        assert set(np.unique(hits)) <= {0.0, 1.0}
        np.testing.assert_allclose(hits.mean(0), list(shares.values()))
