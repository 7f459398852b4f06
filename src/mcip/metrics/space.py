"""Diagnostics of a joint embedding space: modality gap, alignment and uniformity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mcip.core.blocks import Array, float32
from mcip.core.errors import ConfigError, DataError

_BLOCK_ROWS = 1024
_RIDGE = 1e-3


class ModalityGap(NamedTuple):
    """How far two modalities lie apart in one space.

    Attributes:
        distance: Euclidean distance of the two centroids.
        probe_accuracy: How often a linear probe tells the modalities apart on held-out rows: 0.5 is chance, 1 always.
    """

    distance: float
    probe_accuracy: float


def modality_gap(images: Array, texts: Array, seed: int = 0) -> ModalityGap:
    """Measure the distance of the centroids and the accuracy of a linear probe.

    The probe is a ridge regression on the modality, fitted on a random half of the rows of each and tested on the other
    half; both modalities weigh the same, whatever their numbers.

    Args:
        images: Embeddings (N, D), N at least 2.
        texts: Embeddings (T, D), T at least 2; they need not belong to the images.
        seed: Of the split into halves.

    Raises:
        DataError: Fewer than two rows, or different dimensions.

    Source: Liang et al., "Mind the Gap", NeurIPS 2022, for the distance.
    """
    sides = [float32(images).cpu(), float32(texts).cpu()]
    if min(len(side) for side in sides) < 2 or sides[0].shape[1] != sides[1].shape[1]:
        raise DataError(
            f"Images {tuple(sides[0].shape)} and texts {tuple(sides[1].shape)}: give two rows or more of each, "
            "embedded by one model."
        )
    centroids = [side.double().mean(0) for side in sides]
    generator = torch.Generator().manual_seed(seed)
    halves = [side[torch.randperm(len(side), generator=generator)].tensor_split(2) for side in sides]
    probe = _fit_probe(halves[0][0], halves[1][0])
    images_right = (_decide(halves[0][1], probe) > 0).double().mean()
    texts_right = (_decide(halves[1][1], probe) <= 0).double().mean()
    return ModalityGap(float((centroids[0] - centroids[1]).norm()), float((images_right + texts_right) / 2))


def alignment(x: Array, y: Array, alpha: float = 2.0) -> float:
    """The mean distance of positive pairs, to the power alpha; 0 is best.

    Args:
        x: Embeddings (N, D).
        y: Embeddings (N, D); row i is the positive of row i of x.
        alpha: The power.

    Raises:
        DataError: The shapes differ, or there are no pairs.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, equation 5.
    """
    left = float32(x)
    right = float32(y, left.device)
    if left.shape != right.shape or len(left) == 0:
        raise DataError(
            f"Embeddings {tuple(left.shape)} and {tuple(right.shape)}: give pairs, row by row, at least one."
        )
    blocks = zip(left.split(_BLOCK_ROWS), right.split(_BLOCK_ROWS), strict=True)
    total = sum(float((x - y).norm(dim=1).double().pow(alpha).sum()) for x, y in blocks)
    return total / len(left)


def uniformity(x: Array, t: float = 2.0) -> float:
    """The logarithm of the mean Gaussian potential over all pairs of different rows; lower is more uniform.

    Args:
        x: Embeddings (N, D), N at least 2.
        t: The Gaussian's sharpness, above 0.

    Raises:
        ConfigError, DataError: t is not above 0; fewer than two rows.

    Source: Wang and Isola, ICML 2020, equation 6.
    """
    rows = float32(x)
    if t <= 0:
        raise ConfigError(f"t is {t}: it must be above 0 (the paper uses 2).")
    if len(rows) < 2:
        raise DataError(f"{len(rows)} embeddings have no pairs: give at least two.")
    squares = rows.square().sum(1)
    total = 0.0
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        distances = (squares[block, None] + squares - 2 * rows[block] @ rows.T).clamp_(min=0)
        potential = distances.mul_(-t).exp_()
        potential[:, block].fill_diagonal_(0.0)
        total += float(potential.sum(1).double().sum())
    return float(torch.tensor(total, dtype=torch.float64).div(len(rows) * (len(rows) - 1)).log())


def _fit_probe(images: Tensor, texts: Tensor) -> Tensor:
    """Weights (D + 1,), float64, positive for images: the minimum of the balanced ridge regression on +1 and -1."""
    design = [torch.cat([side.double(), torch.ones(len(side), 1, dtype=torch.float64)], 1) for side in (images, texts)]
    gram = sum((side.T @ side / len(side) for side in design), torch.zeros(()))
    target = design[0].mean(0) - design[1].mean(0)
    ridge = _RIDGE * gram.diagonal()[:-1].mean()
    penalty = torch.diag(torch.cat([ridge.expand(len(gram) - 1), ridge.new_zeros(1)]))
    solution: Tensor = torch.linalg.solve(gram + penalty, target)
    return solution


def _decide(rows: Tensor, probe: Tensor) -> Tensor:
    return rows.double() @ probe[:-1] + probe[-1]
