"""Additive angular margin against captions, several of which may belong to an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mcip.core.errors import ConfigError, ModelError
from mcip.losses.arc_margin import apply_margin, check_margin, products_with_unit_rows, unit


class MultiCaptionArcMargin(nn.Module):
    """Soft-target cross entropy over scaled cosines to captions, with an angular margin on an image's own captions.

    The target of an image with K captions is 1/K on each. The captions of a batch are given once each, with a multi-hot
    target: one that was mined for two images is a positive of both. (The reference repeats it, and the copy is a
    negative of the other image.) Images without captions contribute nothing. (The reference counts them in the mean,
    with a loss of 0 or with the smoothing term alone.)

    Source: Schall et al., "Optimizing CLIP Models for Image Retrieval with Maintained Joint-Embedding Alignment",
    SISAP 2024.

    Example:
        >>> loss = MultiCaptionArcMargin(margin=0.1)
        >>> captions = torch.eye(3)
        >>> images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
        >>> mined = torch.tensor([[True, False, False], [False, True, True]])
        >>> loss(images, captions, mined).item() < loss(images, captions, ~mined).item()
        True
    """

    def __init__(self, margin: float = 0.1, scale: float = 30.0, smoothing: float = 0.0) -> None:
        """Set the constants.

        Args:
            margin: In radians.
            scale: Multiplies the cosines.
            smoothing: Weight of max_j -(1 - t_ij) log p_ij, which lifts the least likely negative caption. The
                reference's code has it at 0.1; its papers do not mention it.

        Raises:
            ConfigError: A parameter is out of range.
        """
        super().__init__()
        check_margin(margin, scale)
        if smoothing < 0:
            raise ConfigError(f"smoothing is {smoothing}: it is a weight, 0 or more.")
        self.margin, self.scale, self.smoothing = margin, scale, smoothing

    def forward(self, images: Tensor, captions: Tensor, targets: Tensor, rows: Tensor | float | None = None) -> Tensor:
        """The mean loss over images with captions, computed in float32 (float64 for float64 input), under autocast too.

        Args:
            images: Shape (B, D), normalised or not, any floating dtype.
            captions: Shape (T, D), normalised or not, any floating dtype.
            targets: Shape (B, T), bool: which captions belong to which image.
            rows: What the sum is divided by, where it is not the number of images with captions in this batch. For a
                mean over the global batch of several processes: that number's mean over the processes.

        Returns:
            A scalar; 0, with zero gradients, where no image has a caption.

        Raises:
            ModelError: The shapes do not fit each other.
        """
        if targets.shape != (len(images), len(captions)) or images.shape[1] != captions.shape[1]:
            raise ModelError(
                f"Images {tuple(images.shape)}, captions {tuple(captions.shape)} and targets {tuple(targets.shape)} "
                "do not fit: they must be (B, D), (T, D) and (B, T). Caption embeddings must come from the tuned model."
            )
        image, caption = targets.nonzero(as_tuple=True)
        if len(image) == 0:
            return (images * 0).sum()
        with torch.autocast(images.device.type, enabled=False):
            logits = products_with_unit_rows(unit(images) * self.scale, captions)
            positives = apply_margin(logits[image, caption] / self.scale, self.margin) * self.scale
            logits.index_put_((image, caption), positives)
            counts = targets.sum(1)
            log_total = logits.logsumexp(1)
            loss = (log_total * (counts > 0)).sum() - (positives / counts[image]).sum()
            if self.smoothing:
                loss = loss + self.smoothing * _least_likely(log_total[:, None] - logits, targets, counts).sum()
            mean: Tensor = loss / ((counts > 0).sum() if rows is None else rows)
            return mean

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"margin={self.margin}, scale={self.scale}, smoothing={self.smoothing}"


def _least_likely(surprisal: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """max_j (1 - t_ij) * surprisal_ij of each image with captions, 0 for the others."""
    share = targets.to(surprisal.dtype) / counts.clamp(min=1)[:, None]
    return ((1 - share) * surprisal).amax(1) * (counts > 0)
