"""Additive angular margin (ArcFace) against class centers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mcip.core.errors import ConfigError, ModelError

# Below this sin^2 the sine counts as constant: its gradient has no limit at cosine +1 and -1. In float32 only those two
# cosines are affected, and the cosine of the widened angle by less than 1e-6.
_MIN_SQUARED_SINE = 1e-12


def apply_margin(cosine: Tensor, margin: float) -> Tensor:
    """Widen an angle: cos(theta + margin), without the easy-margin shortcut.

    Where theta + margin would pass pi, the cosine continues as the line cos(theta) - margin * sin(margin), so that it
    keeps falling. The gradient is finite for every cosine.

    Args:
        cosine: Cosines of any shape, float32 or float64.
        margin: The margin in radians, from 0 to below pi.

    Returns:
        Same shape and dtype.

    Source: Deng et al., "ArcFace", CVPR 2019, equation 3; constants as in the MCIP reference.

    Example:
        >>> apply_margin(torch.tensor([0.5]), margin=0.0).tolist()
        [0.5]
    """
    sine = (1 - cosine.square()).clamp(_MIN_SQUARED_SINE, 1.0).sqrt()
    widened = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), widened, cosine - margin * math.sin(margin))


def check_margin(margin: float, scale: float) -> None:
    """Raise `ConfigError` where margin (radians) or scale are out of range."""
    if not 0 <= margin < math.pi:
        raise ConfigError(f"margin is {margin}: it is an angle in radians, from 0 to below pi (the paper uses 0.1).")
    if not (scale > 0 and math.isfinite(scale)):
        raise ConfigError(f"scale is {scale}: it multiplies the cosines and must be above 0 (the paper uses 30).")


def check_dimension(embeddings: Tensor, centers: Tensor) -> None:
    """Raise `ModelError` where embeddings are not rows of the dimension of the class centers (C, D)."""
    if embeddings.ndim != 2 or embeddings.shape[1] != centers.shape[1]:
        raise ModelError(
            f"Embeddings of shape {tuple(embeddings.shape)} do not fit class centers of shape "
            f"{tuple(centers.shape)}: make ArcMargin with the model's embedding dimension."
        )


def products_with_unit_rows(x: Tensor, w: Tensor) -> Tensor:
    """Multiply x (B, D) by the L2-normalised rows of w (T, D): shape (B, T), dtype of x, differentiable once."""
    products: Tensor = _ProductsWithUnitRows.apply(x, w.to(x.dtype))
    return products


def unit(embeddings: Tensor) -> Tensor:
    """L2-normalised rows, in float32 at least."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)


class _ProductsWithUnitRows(torch.autograd.Function):
    """Makes no normalised copy of w: for class centers autograd's normalisation costs as much as the products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(w, dim=1).clamp_min(1e-12)
        ctx.save_for_backward(x, w, norms)
        return (x @ w.T).div_(norms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, w, norms = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient / norms
            if not ctx.needs_input_grad[1]:
                return gradient @ w, None
            along = gradient.T @ x
            radial = torch.einsum("cd,cd->c", along, w) / norms.square()
            return gradient @ w, along.addcmul_(w, radial[:, None], value=-1)


class ArcMargin(nn.Module):
    """Cross entropy over scaled cosines to class centers, with an angular margin on the right class.

    Attributes:
        weight: The class centers, shape (num_classes, dim), Xavier-uniform at the start; they need not be normalised.

    Source: Deng et al., "ArcFace", CVPR 2019, equation 3; margin and scale of Schall et al., SISAP 2024.

    Example:
        >>> loss = ArcMargin(num_classes=3, dim=8)
        >>> embeddings, labels = torch.randn(4, 8), torch.tensor([0, 2, 1, 0])
        >>> loss(embeddings, labels).shape
        torch.Size([])
    """

    def __init__(self, num_classes: int, dim: int, margin: float = 0.1, scale: float = 30.0) -> None:
        """Make the centers.

        Args:
            num_classes: The number C of classes.
            dim: D, the embedding's dimension.
            margin: In radians.
            scale: Multiplies the cosines.

        Raises:
            ConfigError: A parameter is out of range.
        """
        super().__init__()
        if num_classes < 1 or dim < 1:
            raise ConfigError(f"num_classes is {num_classes} and dim is {dim}: both must be at least 1.")
        check_margin(margin, scale)
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, computed in float32 (float64 for float64 input), under autocast too.

        Args:
            embeddings: Shape (B, D), normalised or not, any floating dtype.
            labels: Shape (B,), int64, from 0 to num_classes - 1.

        Returns:
            A scalar.

        Raises:
            ModelError: The embeddings do not have the centers' dimension.
        """
        check_dimension(embeddings, self.weight)
        with torch.autocast(embeddings.device.type, enabled=False):
            images = unit(embeddings)
            logits = products_with_unit_rows(images * self.scale, self.weight)
            positives = torch.arange(len(labels), device=labels.device), labels
            logits.index_put_(positives, apply_margin(logits[positives] / self.scale, self.margin) * self.scale)
            return F.cross_entropy(logits, labels)

    def extra_repr(self) -> str:
        """What `print` shows."""
        classes, dim = self.weight.shape
        return f"num_classes={classes}, dim={dim}, margin={self.margin}, scale={self.scale}"
