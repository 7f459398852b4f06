"""The benchmarks: one module a family, from its official files to queries, gallery and relevance."""

from __future__ import annotations

from typing import Final

from mcip.evaluation.benchmarks import (
    adience,
    aircraft,
    coco,
    fine_grained,
    flickr30k,
    flowers,
    gpr1200,
    icir,
    ilias,
    imagenet,
    instre,
    objectnet,
    revisited,
)
from mcip.evaluation.benchmarks.base import Benchmark

# In the order of tables.
_FAMILIES: Final = (
    gpr1200.BENCHMARKS,
    instre.BENCHMARKS,
    fine_grained.BENCHMARKS,
    revisited.BENCHMARKS,
    adience.BENCHMARKS,
    ilias.BENCHMARKS,
    icir.BENCHMARKS,
    imagenet.BENCHMARKS,
    aircraft.BENCHMARKS,
    flowers.BENCHMARKS,
    objectnet.BENCHMARKS,
    flickr30k.BENCHMARKS,
    coco.BENCHMARKS,
)

BENCHMARKS: Final[dict[str, Benchmark]] = {benchmark.name: benchmark for family in _FAMILIES for benchmark in family}
