"""The settings that `mcip_variants.py` tries, and the caption loss that each gives."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.embeddings.mined_captions import CaptionLookup
from mcip.losses.arc_margin import apply_margin, products_with_unit_rows, unit

MARGIN: Final = 0.1
SCALE: Final = 30.0


@dataclass(frozen=True)
class Setting:
    """How the image tower is tuned; plain MCIP where all but the caption weight is as it stands here.

    Attributes:
        variant: What the table calls it.
        weight: The caption weight w.
        last: The caption weight of the last step, to which it changes from `weight` in equal steps.
        keep: Weight of the penalty on leaving the base's embeddings, as of `mcip tune --keep`.
        sharing: A caption that was mined for images of n classes has a share proportional to n^-sharing in its images'
            targets.
        own: The shares of an image's captions are a softmax of their mined similarities at this temperature.
        batch: The target of an image is a softmax, at this temperature, of the base's similarities to all captions of
            the batch.
        queue: The captions of this many images of earlier batches are further negatives.
        miner: Whose embeddings found the captions: the base's, those of an image tower that plain MCIP tuned
            ("tuned"), or those with a text tower realigned to it ("realigned").
    """

    variant: str
    weight: float = 0.2
    last: float | None = None
    keep: float = 0.0
    sharing: float = 0.0
    own: float = 0.0
    batch: float = 0.0
    queue: int = 0
    miner: str = "base"

    def __str__(self) -> str:
        """The caption weight and what differs from plain MCIP."""
        changed = [field for field in fields(self)[2:] if getattr(self, field.name) != field.default]
        return ", ".join([f"weight {self.weight:g}", *(f"{one.name} {getattr(self, one.name)}" for one in changed)])


class Captions:
    """The captions' part of the loss as a setting has it; it stands in the place of `CaptionTerm`.

    Attributes:
        weight: Its share of the total loss in the present step.
    """

    def __init__(
        self, setting: Setting, steps: int, lookup: CaptionLookup, texts: NDArray[np.float32],
        similar: NDArray[np.float32], labels: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Count how many classes share each caption.

        Args:
            setting: The setting.
            steps: Those of the training.
            lookup: The captions of each training image.
            texts: float32 (captions, D), their embeddings.
            similar: float32 (images, D), the base's embeddings of the training images.
            labels: int64 (images,), the numbers of their classes.
        """
        self.setting, self.steps, self.lookup, self.texts, self.similar = setting, steps, lookup, texts, similar
        self.step, self.weight, self.earlier = 0, setting.weight, deque[int](maxlen=setting.queue)
        counts = lookup.ends - lookup.starts
        if not counts.all():
            raise ValueError("Each training image needs a caption.")
        pairs = np.unique(np.stack([lookup.ids, np.repeat(labels, counts)], 1), axis=0)
        self.classes = np.bincount(pairs[:, 0], minlength=len(texts)).astype(np.float32)

    def of_batch(self, images: Tensor, rows: list[int], batch: list[int] | None = None) -> Tensor:
        """The loss of a whole batch of image embeddings (B, D) that are those of these rows; a scalar."""
        setting = self.setting
        if setting.last is not None:
            part = self.step / max(1, self.steps - 1)
            self.weight = (1 - part) * setting.weight + part * setting.last
        self.step += 1
        captions, targets = self.lookup.batch([*rows, *self.earlier])
        self.earlier.extend(rows)
        mined, texts = targets[: len(rows)], torch.from_numpy(self.texts[captions])
        similarities = torch.from_numpy(self.similar[rows]) @ texts.T
        return soft_loss(images, texts, mined, self.shares(captions, mined, similarities))

    def shares(self, captions: NDArray[np.int64], mined: Tensor, similarities: Tensor) -> Tensor:
        """Each caption's share of each image's target: float32 (B, T), the sum of a row being 1."""
        setting = self.setting
        if setting.batch:
            return (similarities / setting.batch).softmax(1)
        logits = torch.zeros_like(similarities)
        if setting.own:
            logits = logits + similarities / setting.own
        if setting.sharing:
            logits = logits - setting.sharing * torch.from_numpy(self.classes[captions]).log()
        return logits.masked_fill(~mined, -torch.inf).softmax(1)


def soft_loss(images: Tensor, texts: Tensor, mined: Tensor, shares: Tensor) -> Tensor:
    """Multi-Caption-ArcMargin with any target: the margin is that of the mined captions; a scalar.

    Args:
        images: Shape (B, D).
        texts: Shape (T, D).
        mined: Shape (B, T), bool.
        shares: Shape (B, T), the target; each row sums to 1.
    """
    cosines = products_with_unit_rows(unit(images), texts)
    logits = SCALE * torch.where(mined, apply_margin(cosines, MARGIN), cosines)
    return -(shares * logits.log_softmax(1)).sum(1).mean()
