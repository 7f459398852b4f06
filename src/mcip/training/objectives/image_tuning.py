"""The objective of `mcip.tune`: the image tower and the class centers are trained, captions are looked up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip import models
from mcip.data import Pixels, Table
from mcip.data.transforms import ImageTransform
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.evaluation.validation import Validation
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.training.loop import Group
from mcip.training.order import EpochOrder


class ImageTuning:
    """The objective of `tune`: the image tower and the class centers are trained, captions are looked up."""

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
        center_lr: float,
        weight_decay: float,
        transform: ImageTransform,
        workers: int,
        cache_gb: float,
        max_unreadable: float,
        seed: int,
        centers: Tensor | None = None,
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
        if centers is not None:
            class_loss.weight.data.copy_(centers)
        class_loss.to(device)
        self.caption_loss = MultiCaptionArcMargin(margin=margin, scale=scale, smoothing=smoothing)
        self.caption_weight = caption_weight if mined else 0.0
        self.lookup: CaptionLookup | None = mined.of_images(table.ids) if mined else None
        self.texts: Embeddings | None = mined.text_embeddings(model) if mined else None
        visual = model.clip.visual.to(device, memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"image_tower": visual, "centers": class_loss}
        self.tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
        self.tensors["centers.weight"] = class_loss.weight.detach()
        self.groups = [
            Group("image tower", [p for p in visual.parameters() if p.requires_grad], lr, weight_decay),
            Group("centers", list(class_loss.parameters()), center_lr, weight_decay),
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
        by_class = self.modules["centers"](images, self.labels[rows].to(self.device))
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
        return self.validation() if self.validation else {}
