"""The objective of `mcip.tune`: the image tower and the class centres are trained, captions are looked up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from timm.layers.patch_dropout import PatchDropout
from torch import Tensor, nn

from mcip import models
from mcip.captions import CaptionLookup, MinedCaptions
from mcip.data import Pixels, Table
from mcip.data.transforms import ImageTransform
from mcip.embeddings import Embeddings
from mcip.errors import ConfigError, DataError
from mcip.evaluation.validation import Validation
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.training.fit import Group
from mcip.training.order import EpochOrder


class ImageTuning:
    """The objective of `tune`: the image tower and the class centres are trained, captions are looked up."""

    def __init__(
        self,
        model: models.Model,
        table: Table,
        order: EpochOrder,
        mined: MinedCaptions | None,
        device: torch.device,
        *,
        margin: float,
        scale: float,
        smoothing: float,
        caption_weight: float,
        lr: float,
        centre_lr: float,
        weight_decay: float,
        transform: ImageTransform,
        workers: int,
        cache_gb: float,
        max_unreadable: float,
        seed: int,
        centres: Tensor | None = None,
        validation: Validation | None,
    ) -> None:
        self.order, self.device, self.transform, self.validation = order, device, transform, validation
        self.ids, self.unreadable = table.ids, dict[str, str]()
        self.pixels = Pixels(table, transform, workers=workers, cache_gb=cache_gb, max_unreadable=max_unreadable)
        self.classes = sorted({label for label in table.labels if label is not None})
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[label] for label in table.labels if label is not None])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            class_loss = ArcMargin(len(self.classes), model.embed_dim, margin=margin, scale=scale)
        if centres is not None:
            class_loss.weight.data.copy_(centres)
        class_loss.to(device)
        self.caption_loss = MultiCaptionArcMargin(margin=margin, scale=scale, smoothing=smoothing)
        self.caption_weight = caption_weight if mined else 0.0
        self.lookup: CaptionLookup | None = mined.of_images(table.ids) if mined else None
        self.texts: Embeddings | None = mined.text_embeddings(model) if mined else None
        visual = model.clip.visual.to(device, memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"image_tower": visual, "centres": class_loss}
        self.tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
        self.tensors["centres.weight"] = class_loss.weight.detach()
        self.groups = [
            Group("image tower", [p for p in visual.parameters() if p.requires_grad], lr, weight_decay),
            Group("centres", list(class_loss.parameters()), centre_lr, weight_decay),
        ]

    def batches(self, steps: range) -> Iterator[tuple[Tensor, list[int]]]:
        """The prepared pixels and the rows of each step."""
        return self.pixels.batches(self.order.batch(step) for step in steps)

    def losses(self, batch: tuple[Tensor, list[int]], generator: torch.Generator) -> dict[str, Tensor]:
        """The total loss and its parts."""
        pixels, rows = batch
        if not rows:
            return {}
        pixels = self.transform.finish(pixels.to(self.device, non_blocking=True), generator)
        images = self.modules["image_tower"](pixels.contiguous(memory_format=torch.channels_last))
        images = F.normalize(images.float(), dim=-1)
        by_class = self.modules["centres"](images, self.labels[rows].to(self.device))
        if self.lookup is None or self.texts is None:
            return {"loss": by_class, "class_loss": by_class}
        captions, targets = self.lookup.batch(rows)
        texts = torch.from_numpy(self.texts.take(captions)).to(self.device)
        by_caption = self.caption_loss(images, texts, targets.to(self.device))
        loss = (1 - self.caption_weight) * by_class + self.caption_weight * by_caption
        return {"loss": loss, "class_loss": by_class, "caption_loss": by_caption}

    def after_step(self) -> None:
        """Note what could not be read."""
        self.unreadable |= {self.ids[row]: why for row, why in self.pixels.unreadable.items()}

    def validate(self) -> dict[str, float]:
        """Image-to-image mAP, and text-to-image recall where there are captions."""
        return self.validation.scores() if self.validation else {}


def class_means(table: Table, embeddings: Embeddings) -> Tensor:
    """The normalised mean embedding of each class, classes in sorted order; float32 of shape (C, D)."""
    label_of = dict(zip(table.ids, table.labels, strict=True))
    names, codes = np.unique([label_of[image] or "" for image in embeddings.ids], return_inverse=True)
    missing = {label for label in table.labels if label} - set(names.tolist())
    if missing:
        raise DataError(f"No image of the class {min(missing)!r} can be read: leave the class out.")
    sums = torch.zeros(len(names), embeddings.dim)
    sums.index_add_(0, torch.from_numpy(codes), torch.from_numpy(embeddings.array()))
    return F.normalize(sums, dim=-1)


def drop_patches(visual: Any, share: float) -> None:
    """Let a vision transformer leave out this share of its patches in training.

    Raises:
        ConfigError: The image tower is not a vision transformer.
    """
    trunk: Any = getattr(visual, "trunk", visual)
    if hasattr(visual, "patch_dropout"):
        visual.patch_dropout = open_clip.transformer.PatchDropout(share)
    elif hasattr(trunk, "patch_drop"):
        trunk.patch_drop = PatchDropout(share, num_prefix_tokens=trunk.num_prefix_tokens)
    else:
        raise ConfigError("patch_dropout needs a vision transformer: leave it out for this model.")
