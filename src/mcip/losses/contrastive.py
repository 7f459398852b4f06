"""InfoNCE over image-text pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mcip.core.errors import ModelError
from mcip.losses.arc_margin import unit


def info_nce(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross entropy between images and their texts, each against all others of the batch.

    Computed in float32 (float64 for float64 input), under autocast too.

    Args:
        images: Shape (B, D), normalised or not, any floating dtype; row i belongs to row i of `texts`.
        texts: Shape (B, D).
        logit_scale: A scalar that multiplies the cosines: already the exponential of CLIP's parameter.

    Returns:
        A scalar: the mean over both directions.

    Raises:
        ModelError: The shapes differ.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    figure 3.

    Example:
        >>> pairs, scale = torch.eye(4), torch.tensor(100.0)
        >>> info_nce(pairs, pairs, scale).item() < info_nce(pairs, pairs.flip(0), scale).item()
        True
    """
    check_pairs(images, texts)
    with torch.autocast(images.device.type, enabled=False):
        unit_images = unit(images)
        logits = (unit_images * logit_scale) @ unit(texts).to(unit_images.dtype).T
        pairs = torch.arange(len(images), device=images.device)
        return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def check_pairs(images: Tensor, texts: Tensor) -> None:
    """Raise `ModelError` where images and texts are not pairs of one shape (B, D)."""
    if images.shape != texts.shape:
        raise ModelError(
            f"Images {tuple(images.shape)} and texts {tuple(texts.shape)} must be pairs of one shape (B, D)."
        )


def bound_logit_scale(log_scale: Tensor, highest: float = math.log(100)) -> None:
    """Keep CLIP's parameter, the logarithm of the logit scale, between 0 and `highest`; in place."""
    with torch.no_grad():
        log_scale.clamp_(0, highest)
