"""Scores of a query of an image and a text, from the similarities of either with gallery images.

Psomas et al., "Instance-Level Composed Image Retrieval" (i-CIR, BASIC), NeurIPS 2025, arXiv 2510.25387.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# The published values: the weight of the styles, the most directions, and the weight of the term that wants both parts
# alike.
_STYLE_WEIGHT: Final = 0.2
_DIRECTIONS: Final = 250
HARRIS: Final = 0.1


def contrastive_projection(subjects: NDArray[np.float32], styles: NDArray[np.float32]) -> NDArray[np.float32]:
    """The projection onto the directions in which texts of subjects vary, and texts of styles do not.

    They are the eigenvectors of 0.8 S - 0.2 T with the largest positive eigenvalues, 250 at most, where S and T are the
    scatter matrices of the two around the mean of the subjects.

    Args:
        subjects: Embeddings of texts of things, (n, D).
        styles: Embeddings of texts of how things are shown, (m, D).

    Returns:
        Shape (D, D).
    """
    mean = subjects.mean(0)
    things, ways = subjects - mean, styles - mean
    scatter = (1 - _STYLE_WEIGHT) * things.T @ things / max(1, len(things) - 1)
    scatter -= _STYLE_WEIGHT * ways.T @ ways / max(1, len(ways) - 1)
    values, axes = np.linalg.eigh(scatter)
    kept = axes[:, values > 0][:, -_DIRECTIONS:]
    return np.asarray(kept @ kept.T, np.float32)


def normalized(scores: NDArray[Any], least: float) -> NDArray[Any]:
    """Scores less the least that is usual, divided by its size; 0 where they are below it."""
    return np.maximum((scores - least) / max(abs(least), 1e-6), 0)


def harris(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """What is high where both scores are, as Harris' measure of corners is: u v - 0.1 (u + v)^2."""
    return np.asarray(one * other - HARRIS * (one + other) ** 2)


def trapezoidal_precision(ranks: NDArray[np.int64]) -> float:
    """The average precision of a ranking by the trapezoidal rule, as i-CIR and ROxford have it.

    Args:
        ranks: The places of what is relevant, from 0, ascending; all of it is in the ranking.

    Returns:
        From 0 to 1; NaN where nothing is relevant.
    """
    if not len(ranks):
        return float("nan")
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    return float(((before + (found + 1) / (ranks + 1)) / 2).mean())
