"""The objective of `mcip.tune`: the image tower and the class centers are trained, captions are looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.core.processes import processes
from mcip.core.shards import is_sharded
from mcip.data import Pixels
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.losses import MultiCaptionArcMargin, ShardedArcMargin
from mcip.models import Model
from mcip.training.objective import Group
from mcip.training.order import EpochOrder


@dataclass(frozen=True)
class CaptionTerm:
    """The captions' part of the loss of MCIP.

    Attributes:
        loss: Takes image embeddings (B, D), caption embeddings (T, D) and bool targets (B, T).
        weight: Its share of the total loss, between 0 and 1.
        lookup: Which captions each row of the table has.
        texts: The captions' embeddings by the model's own text tower.
    """

    loss: nn.Module
    weight: float
    lookup: CaptionLookup
    texts: Embeddings

    def of_batch(self, images: Tensor, rows: list[int]) -> Tensor:
        """The loss of image embeddings (B, D) that are those of these rows; a scalar."""
        captions, targets = self.lookup.batch(rows)
        texts = torch.from_numpy(self.texts.take(captions)).to(images.device)
        loss: Tensor = self.loss(images, texts, targets.to(images.device))
        return loss

    @classmethod
    def of(
        cls, mined: MinedCaptions, ids: list[str], model: Model, loss: MultiCaptionArcMargin, weight: float
    ) -> CaptionTerm:
        """The term for the captions that were mined for images.

        Args:
            mined: The captions artefact.
            ids: The ids of the table's rows.
            model: The model that is tuned; its text tower embeds the captions, once.
            loss: See the attributes.
            weight: See the attributes.
        """
        return cls(loss, weight, mined.of_images(ids), mined.text_embeddings(model))


class ImageTuning:
    """Class labels, and captions where there are any, against the image tower.

    The loss is (1 - w) class loss + w caption loss, w being the caption term's weight (Schall et al., SISAP 2024).
    Of several processes each decodes and embeds its part of a batch, and all compute the loss of the whole batch.

    Example:
        >>> class_loss = ArcMargin(num_classes=100, dim=model.embed_dim)        # doctest: +SKIP
        >>> images = Pixels(table, model.transform("paper", train=True))        # doctest: +SKIP
        >>> order = EpochOrder(len(table), batch_size=128, seed=0)              # doctest: +SKIP
        >>> objective = ImageTuning(model, images, order, class_loss, lr=1e-6, class_lr=1e-4)  # doctest: +SKIP
        >>> fit(objective, Path("run/checkpoints"), FitSettings(steps=1000))    # doctest: +SKIP
    """

    split: tuple[str, ...] = ("image_tower",)

    def __init__(
        self,
        model: Model,
        images: Pixels,
        order: EpochOrder,
        class_loss: nn.Module,
        *,
        lr: float,
        class_lr: float,
        weight_decay: float = 0.01,
        captions: CaptionTerm | None = None,
        device: str | torch.device = "cpu",
        validation: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Put what is trained on the device.

        Args:
            model: The model that is tuned, in place.
            images: The images of a table of which every row has a label.
            order: Which rows each step sees.
            class_loss: Takes embeddings (B, D) of unit length and labels (B,), numbers of the sorted classes, and gives
                a scalar; its parameters are trained too.
            lr: Learning rate of the image tower.
            class_lr: Learning rate of the class loss's parameters.
            weight_decay: AdamW's weight decay.
            captions: The captions' part of the loss.
            device: Where to train.
            validation: Gives scores by name.
        """
        self.images, self.order, self.captions, self.validation = images, order, captions, validation
        self.device, self.transform = torch.device(device), images.transform
        self.ids, self.unreadable = images.table.ids, dict[str, str]()
        self.team = processes()
        self.classes = sorted({label for label in images.table.labels if label is not None})
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[label] for label in images.table.labels if label is not None])
        visual = model.clip.visual
        if not any(map(is_sharded, visual.parameters())):
            visual = visual.to(self.device, memory_format=torch.channels_last)
        class_loss.to(self.device)
        self.modules: dict[str, nn.Module] = {"image_tower": visual, "class_loss": class_loss}
        self.tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
        self.tensors |= {f"class_loss.{name}": tensor for name, tensor in class_loss.state_dict().items()}
        self.groups = [
            Group("image tower", [p for p in visual.parameters() if p.requires_grad], lr, weight_decay),
            Group("class loss", list(class_loss.parameters()), class_lr, weight_decay),
        ]

    def batches(self, steps: range) -> Iterator[tuple[Tensor, list[int]]]:
        """The prepared pixels and the rows of each step, of this process."""
        batches = (self.order.batch(step) for step in steps)
        return self.images.batches([rows[place] for place in self.team.part(len(rows))] for rows in batches)

    def losses(self, batch: tuple[Tensor, list[int]], generator: torch.Generator) -> dict[str, Tensor]:
        """The total loss and its parts."""
        before = sum(self.team.gather(torch.tensor([len(batch[1])])).tolist()[: self.team.rank])
        rows = self.team.gather(torch.tensor(batch[1], dtype=torch.int64)).tolist()
        if not rows:
            return {}
        images = self.team.gather_with_gradient(self._embed(batch[0], before, len(rows), generator))
        if isinstance(self.modules["class_loss"], ShardedArcMargin):
            self.modules["class_loss"].draw(generator)
        by_class = self.modules["class_loss"](images, self.labels[rows].to(self.device))
        if self.captions is None:
            return {"loss": by_class, "class_loss": by_class}
        by_caption = self.captions.of_batch(images, rows)
        weight = self.captions.weight
        loss = (1 - weight) * by_class + weight * by_caption
        return {"loss": loss, "class_loss": by_class, "caption_loss": by_caption}

    def _embed(self, pixels: Tensor, before: int, total: int, generator: torch.Generator) -> Tensor:
        """The embeddings of this process's images of a batch.

        Args:
            pixels: The images, prepared.
            before: The images of the batch in the processes before this one.
            total: Those in all of them: random numbers are drawn for all, so that they do not depend on their number.
            generator: Of the random numbers.
        """
        draws = self.transform.draw(total, generator)
        count = len(pixels)
        if not count:  # this process takes part with an image that does not count
            pixels, draws = pixels.new_zeros(1, *pixels.shape[1:]), None if draws is None else draws[:1]
        elif draws is not None:
            draws = draws[before : before + count]
        pixels = self.transform.finish(pixels.to(self.device, non_blocking=True), draws=draws)
        images = self.modules["image_tower"](pixels.contiguous(memory_format=torch.channels_last))
        return F.normalize(images.float(), dim=-1)[:count]

    def after_step(self) -> None:
        """Note what could not be read."""
        self.unreadable |= {self.ids[row]: why for row, why in self.images.unreadable.items()}

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}
