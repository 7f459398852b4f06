"""The objective of `mcip.tune`: the image tower and the class centers are trained, captions are looked up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.core.choices import Precision
from mcip.data import Pixels
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.losses import MultiCaptionArcMargin
from mcip.models import Model
from mcip.training.compilation import compiled
from mcip.training.objective import Group
from mcip.training.optimizer import has_batch_norm, layer_factors
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

    def of_batch(self, images: Tensor, rows: list[int], part: slice | None = None) -> Tensor:
        """The loss of image embeddings (B, D) that are those of these rows; a scalar.

        Args:
            images: The embeddings, of all rows or of a part of them.
            rows: The rows of the batch: all their captions count.
            part: The place of the images among the rows. The losses of the parts sum up to the batch's.
        """
        captions, targets = self.lookup.batch(rows)
        texts = torch.from_numpy(self.texts.take(captions)).to(images.device)
        loss: Tensor
        if part is None:
            loss = self.loss(images, texts, targets.to(images.device))
        else:
            loss = self.loss(images, texts, targets[part].to(images.device), rows=float(targets.any(1).sum()))
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


@dataclass(frozen=True)
class _Part:
    """Some rows of a batch, for which the losses are their share of the batch's.

    Attributes:
        pixels: Finished, of the part's rows.
        rows: All rows of the batch.
        place: The part's among them.
    """

    pixels: Tensor
    rows: list[int]
    place: slice


class ImageTuning:
    """Class labels, and captions where there are any, against the image tower.

    The loss is (1 - w) class loss + w caption loss, w being the caption term's weight (Schall et al., SISAP 2024). With
    x the base's embedding of the same augmented pixels and y the one in training, keep (1 - x y) is added.

    Example:
        >>> class_loss = ArcMargin(num_classes=100, dim=model.embed_dim)        # doctest: +SKIP
        >>> images = Pixels(table, model.transform("paper", train=True))        # doctest: +SKIP
        >>> order = EpochOrder(len(table), batch_size=128, seed=0)              # doctest: +SKIP
        >>> objective = ImageTuning(model, images, order, class_loss, lr=1e-6, class_lr=1e-4)  # doctest: +SKIP
        >>> fit(objective, Path("run/checkpoints"), FitSettings(steps=1000))    # doctest: +SKIP
    """

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
        keep: float = 0.0,
        layer_decay: float = 1.0,
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
            keep: Weight of the penalty on leaving the embeddings of the model as it is now; a copy of its image tower
                computes them, without graph.
            layer_decay: What the learning rate falls by from each layer of the image tower to the one below it.
            device: Where to train.
            validation: Gives scores by name.
        """
        self.images, self.order, self.captions, self.validation = images, order, captions, validation
        self.device, self.transform = torch.device(device), images.transform
        self.ids, self.unreadable = images.table.ids, dict[str, str]()
        self.classes = sorted({label for label in images.table.labels if label is not None})
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[label] for label in images.table.labels if label is not None])
        visual = model.clip.visual.to(self.device, memory_format=torch.channels_last)
        self.keep, self.base = keep, copy.deepcopy(visual).eval().requires_grad_(False) if keep else None
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._compiled_for = 0
        class_loss.to(self.device)
        self.modules: dict[str, nn.Module] = {"image_tower": visual, "class_loss": class_loss}
        self.tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
        self.tensors |= {f"class_loss.{name}": tensor for name, tensor in class_loss.state_dict().items()}
        factors = layer_factors(visual, layer_decay) if layer_decay != 1 else {}
        trained = {name: parameter for name, parameter in visual.named_parameters() if parameter.requires_grad}
        by_layer = [factors[name] for name in trained] if factors else None
        self.groups = [
            Group("image tower", list(trained.values()), lr, weight_decay, by_layer),
            Group("class loss", list(class_loss.parameters()), class_lr, weight_decay),
        ]

    def batches(self, steps: range) -> Iterator[tuple[Tensor, list[int]]]:
        """The prepared pixels and the rows of each step."""
        return self.images.batches(self.order.batch(step) for step in steps)

    def compile(self, rows: int, precision: Precision) -> None:
        """Compile the image tower for batches, or parts of them, of a number of rows; see `compiled`."""
        side = self.transform.size
        tower = self.modules["image_tower"]
        self._compiled_for = rows
        self._compiled = compiled(tower, (rows, 3, side, side), self.device, precision)

    def split(self, batch: tuple[Tensor, list[int]], count: int, generator: torch.Generator) -> list[_Part]:
        """At most `count` parts of a batch, as equal as can be, whose losses sum up to the batch's."""
        pixels, rows = batch
        if not rows:
            return []
        finished = self._finish(pixels, generator)
        size = -(-self.order.batch_size // count)
        places = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        return [_Part(finished[place], rows, place) for place in places]

    def losses(self, batch: tuple[Tensor, list[int]] | _Part, generator: torch.Generator) -> dict[str, Tensor]:
        """The total loss and its parts."""
        if isinstance(batch, _Part):
            pixels, rows, place, share = batch.pixels, batch.rows, batch.place, len(batch.pixels) / len(batch.rows)
        elif batch[1]:
            pixels, rows, place, share = self._finish(batch[0], generator), batch[1], None, 1.0
        else:
            return {}
        images = F.normalize(self._embed(pixels).float(), dim=-1)
        labels = self.labels[rows if place is None else rows[place]].to(self.device)
        parts = {"class_loss": share * self.modules["class_loss"](images, labels)}
        loss = parts["class_loss"]
        if self.captions is not None:
            parts["caption_loss"] = self.captions.of_batch(images, rows, place)
            loss = (1 - self.captions.weight) * loss + self.captions.weight * parts["caption_loss"]
        if self.base is not None:
            with torch.no_grad():
                base = F.normalize(self.base(pixels).float(), dim=-1)
            parts["distance"] = share * (1 - (images * base).sum(dim=-1)).mean()
            loss = loss + self.keep * parts["distance"]
        return {"loss": loss, **parts}

    def _finish(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        finished = self.transform.finish(pixels.to(self.device, non_blocking=True), generator)
        return finished.contiguous(memory_format=torch.channels_last)

    def _embed(self, pixels: Tensor) -> Tensor:
        tower, missing = self.modules["image_tower"], self._compiled_for - len(pixels)
        if self._compiled is None or (missing and has_batch_norm(tower)):
            embeddings: Tensor = tower(pixels)
            return embeddings
        # What stands for images that could not be read has no part in the loss, and so no gradient.
        padded = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing)).contiguous(memory_format=torch.channels_last)
        return self._compiled(padded)[: len(pixels)]

    def after_step(self) -> None:
        """Note what could not be read."""
        self.unreadable |= {self.ids[row]: why for row, why in self.images.unreadable.items()}

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}
