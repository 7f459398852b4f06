"""Queries of one part, compared with every vector together where they come at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcip.retrieval.fusion import Part
from mcip.retrieval.results import Results
from mcip.retrieval.snapshot import Snapshot


@dataclass(frozen=True)
class Scan:
    """A query of one part that is compared with every vector."""

    snapshot: Snapshot
    part: Part
    k: int
    offset: int


def scan_together(scans: list[Scan]) -> list[Results]:
    """Answer queries that came at the same time, comparing all those of one version with the vectors together."""
    results: dict[int, Results] = {}
    for snapshot in {id(scan.snapshot): scan.snapshot for scan in scans}.values():
        numbers = [number for number, scan in enumerate(scans) if scan.snapshot is snapshot]
        vectors = np.stack([scans[number].part.vector for number in numbers])
        depth = max(scans[number].offset + scans[number].k for number in numbers)
        for number, found in zip(numbers, snapshot.search_vectors(vectors, "image", depth), strict=True):
            scan = scans[number]
            line = snapshot.engine.calibration.line(scan.part.kind)
            results[number] = Results(found[scan.offset : scan.offset + scan.k], found.version, line)
    return [results[number] for number in range(len(scans))]
