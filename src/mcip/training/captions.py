"""One caption drawn for each image of a step, and the usual parameter groups of contrastive training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mcip.training.objective import Group


def draw_captions(captions: Sequence[Sequence[str]], rows: Sequence[int], seed: int, step: int) -> list[str]:
    """One of the captions of each row, drawn from (seed, step)."""
    places = draw_places(np.array([len(captions[row]) for row in rows]), seed, step)
    return [captions[row][place] for row, place in zip(rows, places, strict=True)]


def draw_places(counts: NDArray[np.int64], seed: int, step: int) -> NDArray[np.int64]:
    """For each count a number from 0 to below it, drawn from (seed, step)."""
    return (np.random.default_rng([seed, step]).random(len(counts)) * counts).astype(np.int64)


def decayed_groups(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> list[Group]:
    """Matrices with weight decay, vectors and scalars without."""
    every = list(parameters)
    return [
        Group("matrices", [p for p in every if p.ndim >= 2], lr, weight_decay),
        Group("vectors", [p for p in every if p.ndim < 2], lr, 0.0),
    ]
