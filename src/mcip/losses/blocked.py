"""InfoNCE and the sigmoid loss of large batches: never more than a block of the B x B logits is in memory.

The logits of a block are computed again in the backward pass. Several processes share the blocks of a global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mcip.core.processes import Processes
from mcip.losses.contrastive import check_pairs

# Logits of a block; in float32 each takes 4 bytes, and about four arrays of this size are alive at a time.
BLOCK = 1 << 26


def blocked_info_nce(
    images: Tensor, texts: Tensor, logit_scale: Tensor, *, team: Processes | None = None, block: int = BLOCK
) -> Tensor:
    """`info_nce` with its value and its gradients, block by block; differentiable once.

    Args:
        images: Shape (B, D), L2-normalised; row i belongs to row i of `texts`.
        texts: Shape (B, D), L2-normalised.
        logit_scale: A scalar that multiplies the cosines.
        team: Processes that all have the same arguments: each computes some of the rows, and all get the whole value
            and the whole gradients.
        block: Logits that are computed at a time.

    Returns:
        A scalar, float32 (float64 for float64 input).

    Raises:
        ModelError: The shapes differ.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    figure 3.

    Example:
        >>> pairs, scale = torch.eye(4), torch.tensor(100.0)
        >>> blocked_info_nce(pairs, pairs, scale).item() < blocked_info_nce(pairs, pairs.flip(0), scale).item()
        True
    """
    return _apply(_InfoNCE, images, texts, logit_scale, None, team, block)


def blocked_sigmoid(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    team: Processes | None = None,
    block: int = BLOCK,
) -> Tensor:
    """The sigmoid loss of SigLIP: every pair of an image and a text is matched or is not, by itself.

    The sum over all pairs of -log sigmoid(z (logit_scale * cosine + logit_bias)), z = 1 for those that belong together
    and -1 for the others, divided by B. Computed block by block; differentiable once.

    Args:
        images: Shape (B, D), L2-normalised; row i belongs to row i of `texts`.
        texts: Shape (B, D), L2-normalised.
        logit_scale: A scalar that multiplies the cosines.
        logit_bias: A scalar that is added to them.
        team: Processes that all have the same arguments: each computes some of the rows, and all get the whole value
            and the whole gradients.
        block: Logits that are computed at a time.

    Returns:
        A scalar, float32 (float64 for float64 input).

    Raises:
        ModelError: The shapes differ.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, equation 2 and algorithm 1.

    Example:
        >>> pairs, scale, bias = torch.eye(4), torch.tensor(20.0), torch.tensor(-10.0)
        >>> round(blocked_sigmoid(pairs, pairs, scale, bias).item(), 6)  # 4 log(1 + exp(-10))
        0.000182
    """
    return _apply(_Sigmoid, images, texts, logit_scale, logit_bias, team, block)


def _apply(
    function: type[torch.autograd.Function],
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    team: Processes | None,
    block: int,
) -> Tensor:
    check_pairs(images, texts)
    dtype = torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)
    with torch.autocast(images.device.type, enabled=False):
        scalars = [scale.to(dtype), None if bias is None else bias.to(dtype)]
        loss: Tensor = function.apply(images.to(dtype), texts.to(dtype), *scalars, team or Processes(), block)
        return loss


class _InfoNCE(torch.autograd.Function):
    """With r and c the logarithms of the sums of the exponentials over rows and columns of the logits l, the loss is
    sum_i (r_i + c_i - 2 l_ii) / 2B and its gradient by l_ij is (exp(l_ij - r_i) + exp(l_ij - c_j) - 2 [i = j]) / 2B.
    """  # noqa: D205

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, bias: None, team: Processes, block: int
    ) -> Tensor:
        over_rows = images.new_zeros(len(images))
        over_columns = images.new_full((1, len(images)), -torch.inf)
        matched = images.new_zeros(())
        for rows in _blocks(len(images), team, block):
            logits = (images[rows] * scale) @ texts.T
            over_rows[rows] = logits.logsumexp(dim=1)
            torch.logaddexp(over_columns, logits.logsumexp(dim=0, keepdim=True), out=over_columns)
            matched += logits[:, rows].diagonal().sum()
        over_columns = team.gather(over_columns).logsumexp(dim=0)
        ctx.save_for_backward(images, texts, scale, over_rows, over_columns)
        ctx.team, ctx.block = team, block
        loss = team.sum(over_rows.sum() - 2 * matched) + over_columns.sum()
        return loss / (2 * len(images))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        images, texts, scale, over_rows, over_columns = ctx.saved_tensors

        def by_logits(cosines: Tensor, rows: slice) -> Tensor:
            logits = cosines.mul_(scale)
            result: Tensor = (logits - over_rows[rows, None]).exp_()
            result += logits.sub_(over_columns).exp_()
            result[:, rows].diagonal().sub_(2)
            return result.mul_(gradient / (2 * len(images)))

        by_images, by_texts, by_scale, _ = _gradients(ctx, images, texts, scale, by_logits)
        return by_images, by_texts, by_scale, None, None, None


class _Sigmoid(torch.autograd.Function):
    """The gradient by the logit l_ij is (sigmoid(l_ij) - [i = j]) / B."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, team: Processes, block: int
    ) -> Tensor:
        total = images.new_zeros(())
        for rows in _blocks(len(images), team, block):
            logits = (images[rows] * scale) @ texts.T + bias
            logits[:, rows].diagonal().neg_()
            total += F.softplus(logits).sum()
        ctx.save_for_backward(images, texts, scale, bias)
        ctx.team, ctx.block = team, block
        return team.sum(total) / len(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        images, texts, scale, bias = ctx.saved_tensors

        def by_logits(cosines: Tensor, rows: slice) -> Tensor:
            result = cosines.mul_(scale).add_(bias).sigmoid_()
            result[:, rows].diagonal().sub_(1)
            return result.mul_(gradient / len(images))

        return *_gradients(ctx, images, texts, scale, by_logits), None, None


def _gradients(
    ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, by_logits: Callable[[Tensor, slice], Tensor]
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """The gradients by images, texts, scale and bias, out of those by the logits of each block."""
    by_images = torch.zeros_like(images) if ctx.needs_input_grad[0] else None
    by_texts, by_bias = torch.zeros_like(texts), torch.zeros_like(scale)
    with torch.autocast(images.device.type, enabled=False):
        for rows in _blocks(len(images), ctx.team, ctx.block):
            weights = by_logits(images[rows] @ texts.T, rows)
            if by_images is not None:
                by_images[rows] = weights @ texts
            by_texts.addmm_(weights.T, images[rows])
            by_bias += weights.sum()
        by_texts, by_bias = ctx.team.sum(by_texts), ctx.team.sum(by_bias)
        # The weighted sum of all cosines.
        by_scale = (by_texts * texts).sum()
        return None if by_images is None else ctx.team.sum(by_images) * scale, by_texts * scale, by_scale, by_bias


def _blocks(rows: int, team: Processes, block: int) -> Iterator[slice]:
    """The rows of this process, in slices of which each has about `block` logits."""
    part, step = team.part(rows), max(1, block // max(1, rows))
    for start in range(part.start, part.stop, step):
        yield slice(start, min(start + step, part.stop))
