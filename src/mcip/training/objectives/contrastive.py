"""The objective of contrastive pretraining: both towers are trained on images and their captions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip import models
from mcip.core.choices import TransformName
from mcip.data import Pixels, Table
from mcip.evaluation.validation import Validation
from mcip.losses import bound_logit_scale, info_nce
from mcip.models.text_tower import TextTower
from mcip.training.loop import Group
from mcip.training.order import EpochOrder


class ContrastivePretraining:
    """The objective of `pretrain`: both towers, one caption drawn per image and step."""

    def __init__(
        self,
        model: models.Model,
        table: Table,
        order: EpochOrder,
        device: torch.device,
        transform: TransformName,
        *,
        lr: float,
        weight_decay: float,
        seed: int,
        workers: int,
        cache_gb: float,
        validation: Validation | None,
    ) -> None:
        self.model, self.order, self.device, self.seed, self.validation = model, order, device, seed, validation
        self.captions, self.ids, self.unreadable = table.captions, table.ids, dict[str, str]()
        self.transform = model.transform(transform, train=True)
        self.pixels = Pixels(table, self.transform, workers=workers, cache_gb=cache_gb)
        clip = model.clip.to(device, memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"clip": _Pairs(clip)}
        self.tensors = dict(clip.state_dict())
        parameters = list(clip.parameters())
        self.groups = [
            Group("matrices", [p for p in parameters if p.ndim >= 2], lr, weight_decay),
            Group("vectors", [p for p in parameters if p.ndim < 2], lr, 0.0),
        ]

    def batches(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The prepared pixels of each step, and the tokens of one caption of each."""
        for step, (pixels, rows) in zip(steps, self.pixels.batches(self.order.batch(s) for s in steps), strict=True):
            pick = np.random.default_rng([self.seed, step]).random(len(rows))
            texts = [
                self.captions[row][int(share * len(self.captions[row]))] for row, share in zip(rows, pick, strict=True)
            ]
            yield pixels, self.model.tokenizer(texts)

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
        self.unreadable |= {self.ids[row]: why for row, why in self.pixels.unreadable.items()}
        bound_logit_scale(self.model.clip.logit_scale)

    def validate(self) -> dict[str, float]:
        """Text-to-image recall at 5, and image-to-image mAP where there are labels."""
        return self.validation() if self.validation else {}


class _Pairs(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip, self.text_tower = clip, TextTower(clip)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.clip.encode_image(pixels), self.text_tower(tokens), self.clip.logit_scale.exp()
