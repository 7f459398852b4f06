"""The objective of contrastive pretraining: both towers are trained on images and their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.data import Pixels
from mcip.losses import bound_logit_scale, info_nce
from mcip.models import Model
from mcip.models.text_tower import TextTower
from mcip.training.captions import decayed_groups, draw_captions
from mcip.training.order import EpochOrder


class ContrastivePretraining:
    """InfoNCE between both towers, one caption drawn per image and step.

    Example:
        >>> images = Pixels(table, model.transform("model", train=True))  # doctest: +SKIP
        >>> order = EpochOrder(len(table), batch_size=256, seed=0)  # doctest: +SKIP
        >>> objective = ContrastivePretraining(model, images, order, lr=5e-4)  # doctest: +SKIP
        >>> fit(objective, Path("runs/pretrain/checkpoints"), FitSettings(steps=1000))  # doctest: +SKIP
    """

    split: tuple[str, ...] = ()

    def __init__(
        self,
        model: Model,
        images: Pixels,
        order: EpochOrder,
        *,
        lr: float,
        weight_decay: float = 0.1,
        seed: int = 0,
        device: str | torch.device = "cpu",
        validation: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Put the model on the device.

        Args:
            model: The model that is trained, in place.
            images: The images of a table of which every row has captions.
            order: Which rows each step sees.
            lr: Learning rate.
            weight_decay: AdamW's weight decay, of matrices only.
            seed: Seeds the choice of captions.
            device: Where to train.
            validation: Gives scores by name.
        """
        self.model, self.images, self.order, self.validation = model, images, order, validation
        self.device, self.seed, self.transform = torch.device(device), seed, images.transform
        self.captions, self.ids, self.unreadable = images.table.captions, images.table.ids, dict[str, str]()
        clip = model.clip.to(self.device, memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"clip": _Pairs(clip)}
        self.tensors = dict(clip.state_dict())
        self.groups = decayed_groups(clip.parameters(), lr, weight_decay)

    def batches(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The prepared pixels of each step, and the tokens of one caption of each."""
        for step, (pixels, rows) in zip(steps, self.images.batches(self.order.batch(s) for s in steps), strict=True):
            yield pixels, self.model.tokenizer(draw_captions(self.captions, rows, self.seed, step))

    def losses(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE."""
        pixels, tokens = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        if not len(pixels):
            return {}
        pixels = self.transform.finish(pixels, generator).contiguous(memory_format=torch.channels_last)
        images, texts, scale = self.modules["clip"](pixels, tokens)
        return {"loss": info_nce(F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1), scale)}

    def after_step(self) -> None:
        """Keep the logit scale within CLIP's bound, and note what could not be read."""
        self.unreadable |= {self.ids[row]: why for row, why in self.images.unreadable.items()}
        bound_logit_scale(self.model.clip.logit_scale)

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}


class _Pairs(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip, self.text_tower = clip, TextTower(clip)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.clip.encode_image(pixels), self.text_tower(tokens), self.clip.logit_scale.exp()
