"""From a value per query to their mean and its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError


def mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def means(values: NDArray[np.float64], names: Sequence[int]) -> dict[int, float]:
    """The mean of each column, by its name."""
    return {name: mean(column) for name, column in zip(names, values.T, strict=True)}


def check_ks(ks: Sequence[int], name: str = "ks") -> None:
    """Raise `ConfigError` where there is no k, or one below 1."""
    if not ks or min(ks) < 1:
        raise ConfigError(f"{name} is {tuple(ks)}: give one or more, each at least 1.")


def bootstrap_interval(
    per_query: NDArray[np.float64], seed: int = 0, confidence: float = 0.95, resamples: int = 1000
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over the queries, the gallery being as it is.

    Give the differences of two models, query by query, for the interval of the difference of their means.

    Args:
        per_query: Shape (Q,), one value per query; NaN is left out.
        seed: Of the resampling: the same values give the same interval.
        confidence: How much of the resampled means lies within, above 0 and below 1.
        resamples: How often Q queries are drawn with replacement.

    Returns:
        The lower and the upper end; NaN where there are no values.

    Raises:
        ConfigError: confidence or resamples is out of range.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979; the percentile method
    of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ConfigError(f"confidence is {confidence}, resamples {resamples}: use above 0 and below 1, and 1 or more.")
    values = np.asarray(per_query, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    resampled = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
