"""One caption drawn for each image of a step, and the usual parameter groups of contrastive training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from mcip.training.objective import Group


def draw_captions(captions: Sequence[Sequence[str]], rows: Sequence[int], seed: int, step: int) -> list[str]:
    """One of the captions of each row, drawn from (seed, step)."""
    shares = np.random.default_rng([seed, step]).random(len(rows))
    return [captions[row][int(share * len(captions[row]))] for row, share in zip(rows, shares, strict=True)]


def decayed_groups(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> list[Group]:
    """Matrices with weight decay, vectors and scalars without."""
    every = list(parameters)
    return [
        Group("matrices", [p for p in every if p.ndim >= 2], lr, weight_decay),
        Group("vectors", [p for p in every if p.ndim < 2], lr, 0.0),
    ]
