"""The objective of Re-A: the text tower is trained against stored image embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip import models
from mcip.embeddings.store import Embeddings
from mcip.evaluation.validation import Validation
from mcip.losses import bound_logit_scale, info_nce
from mcip.models.text_tower import TextTower
from mcip.training.loop import Group
from mcip.training.order import EpochOrder


class TextAlignment:
    """The objective of `align`: the text tower against stored image vectors."""

    def __init__(
        self,
        model: models.Model,
        images: Embeddings,
        captions: list[list[str]],
        order: EpochOrder,
        device: torch.device,
        *,
        seed: int,
        lr: float,
        weight_decay: float,
        unlocked_layers: int | None,
        grad_checkpointing: bool,
        validation: Validation | None,
    ) -> None:
        self.model, self.images, self.captions, self.order = model, images, captions, order
        self.device, self.seed, self.validation = device, seed, validation
        self.unreadable: dict[str, str] = {}
        clip = model.clip
        # The image tower is not needed: it stays away from the device.
        self.image_tower, clip.visual = clip.visual.cpu(), None
        if unlocked_layers is not None:
            clip.lock_text_tower(unlocked_layers)
        clip.logit_scale.requires_grad_(True)
        if getattr(clip, "logit_bias", None) is not None:
            clip.logit_bias.requires_grad_(False)
        if grad_checkpointing:
            tower = getattr(clip, "text", clip).transformer
            tower.grad_checkpointing = True
        self.modules: dict[str, nn.Module] = {"text_tower": TextTower(clip).to(device)}
        trained = {name: p for name, p in clip.named_parameters() if p.requires_grad}
        self.tensors = {name: parameter.detach() for name, parameter in trained.items()}
        self.groups = [
            Group("matrices", [p for p in trained.values() if p.ndim >= 2], lr, weight_decay),
            Group("vectors", [p for p in trained.values() if p.ndim < 2], lr, 0.0),
        ]

    def batches(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The stored vectors of each step's images, and the tokens of one caption of each."""
        for step in steps:
            rows = self.order.batch(step)
            pick = np.random.default_rng([self.seed, step]).random(len(rows))
            texts = [
                self.captions[row][int(share * len(self.captions[row]))] for row, share in zip(rows, pick, strict=True)
            ]
            yield torch.from_numpy(self.images.take(rows)), self.model.tokenizer(texts)

    def losses(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE, and the logit scale to be logged."""
        images, tokens = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        texts = F.normalize(self.modules["text_tower"](tokens).float(), dim=-1)
        scale = self.model.clip.logit_scale.exp()
        return {"loss": info_nce(images, texts, scale), "logit_scale": scale}

    def after_step(self) -> None:
        """Keep the logit scale within CLIP's bound."""
        bound_logit_scale(self.model.clip.logit_scale)

    def validate(self) -> dict[str, float]:
        """Text-to-image recall at 5."""
        return self.validation() if self.validation else {}

    def give_back(self) -> None:
        """Put the image tower back into the model."""
        self.model.clip.visual = self.image_tower.to(self.device)
