"""Queries that the service answers together are answered as each of them by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mcip
from mcip.retrieval.fusion import Part
from mcip.server.scans import Scan, scan_together


def test_together_as_alone(served: Path) -> None:
    one, other = (mcip.open_index(served, device="cpu") for _ in range(2))
    vectors = np.random.default_rng(0).standard_normal((12, one.engine.state.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scans = [
        Scan((one if number % 3 else other).snapshot(), Part(vector, "text"), 3 + number % 4, number % 2)
        for number, vector in enumerate(vectors)
    ]
    for scan, results in zip(scans, scan_together(scans), strict=True):
        assert results == scan.snapshot.search_parts([scan.part], scan.k, scan.offset)
        assert len(results) == scan.k
