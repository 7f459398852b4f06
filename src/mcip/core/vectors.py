"""Vectors of unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit_vectors(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors (n, D), each divided by its length; float32. A vector of zeros stays one."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors / lengths, np.float32)
