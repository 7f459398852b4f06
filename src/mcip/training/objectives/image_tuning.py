"""The objective of `mcip.tune`: the image tower and the class centers are trained, captions are looked up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.core.choices import Precision
from mcip.core.errors import ConfigError
from mcip.core.processes import processes
from mcip.core.shards import is_sharded
from mcip.data import Pixels
from mcip.embeddings.encode import pad_batch
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.losses import MultiCaptionArcMargin, ShardedArcMargin
from mcip.models import Model
from mcip.models.compiled import compiled
from mcip.models.image_tower import patch_dropout
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

    def of_batch(self, images: Tensor, rows: list[int], batch: list[int] | None = None) -> Tensor:
        """The loss of image embeddings (B, D) that are those of these rows; a scalar.

        Args:
            images: The embeddings.
            rows: Their rows.
            batch: The rows of the batch that these are a part of: their captions count, and the losses of the batch's
                parts sum up to its loss. The rows are the batch where None.
        """
        captions, targets = self.lookup.batch(rows if batch is None else batch)
        texts = torch.from_numpy(self.texts.take(captions)).to(images.device)
        loss: Tensor
        if batch is None:
            loss = self.loss(images, texts, targets.to(images.device))
        else:
            place = {row: number for number, row in enumerate(batch)}
            of_rows = targets[[place[row] for row in rows]].to(images.device)
            loss = self.loss(images, texts, of_rows, rows=float(targets.any(1).sum()))
        return loss

    @classmethod
    def of(
        cls, mined: MinedCaptions, ids: Sequence[str], model: Model, loss: MultiCaptionArcMargin, weight: float
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
        pixels: Finished, of this process's rows of the part.
        kept: The places of the patches that these images keep, where some are left out.
        rows: The rows of the part, of all processes.
        batch: The rows of the batch, of all processes.
    """

    pixels: Tensor
    kept: Tensor | None
    rows: list[int]
    batch: list[int]


class ImageTuning:
    """Class labels, and captions where there are any, against the image tower.

    The loss is (1 - w) class loss + w caption loss, w being the caption term's weight (Schall et al., SISAP 2024). With
    x the base's embedding of the same augmented pixels and y the one in training, keep (1 - x y) is added.
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
        self.team = processes()
        self.classes, self.labels = images.table.classes, torch.from_numpy(images.table.label_numbers)
        visual = model.clip.visual
        if not any(map(is_sharded, visual.parameters())):
            visual = visual.to(self.device, memory_format=torch.channels_last)
        class_loss.to(self.device)
        self.keep, self.base = keep, copy.deepcopy(visual).eval().requires_grad_(False) if keep else None
        self._patch_dropout = patch_dropout(visual)
        if self.team.several and has_batch_norm(visual.train()):
            raise ConfigError(
                "The image tower has batch normalisation, whose statistics would be those of each process's images: "
                "train it in one process, or keep them as they are (--freeze-bn)."
            )
        self._compile: tuple[int, Precision, bool] | None = None
        self._compiled: Callable[[Tensor], Tensor] | None = None
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
        """The prepared pixels and the rows of each step, of this process."""
        batches = (self.order.batch(step) for step in steps)
        return self.images.batches([rows[place] for place in self.team.part(len(rows))] for rows in batches)

    def compile_for(self, rows: int, precision: Precision, graphs: bool = False) -> None:
        """Let the first step compile the image tower for batches, or parts of them, of this many rows a process.

        With CUDA graphs (`graphs`) a batch cannot be taken in parts; see `compiled`.
        """
        self._compile = rows, precision, graphs

    def parts(self, batch: tuple[Tensor, list[int]], count: int, generator: torch.Generator) -> list[_Part]:
        """The parts of a batch, as equal as they can be, whose losses sum up to the batch's."""
        before = sum(self.team.gather(torch.tensor([len(batch[1])])).tolist()[: self.team.rank])
        every = self.team.gather(torch.tensor(batch[1], dtype=torch.int64)).tolist()
        if not every:
            return []
        pixels = self._finish(batch[0], before, len(every), generator)
        kept = None
        if self._patch_dropout is not None:
            # Drawn for the images of all processes, as in `_finish`.
            kept = self._patch_dropout.draw(len(every), generator)[before : before + len(pixels)].to(self.device)
        if isinstance(self.modules["class_loss"], ShardedArcMargin):
            self.modules["class_loss"].draw(generator)
        if count == 1:
            return [_Part(pixels, kept, every, every)]
        size = -(-len(self.team.part(self.order.batch_size)) // count)
        places = [slice(number * size, (number + 1) * size) for number in range(count)]
        rows = [self.team.gather(torch.tensor(batch[1][place], dtype=torch.int64)).tolist() for place in places]
        return [
            _Part(pixels[place], None if kept is None else kept[place], some, every)
            for place, some in zip(places, rows, strict=True)
            if some
        ]

    def losses(self, batch: tuple[Tensor, list[int]] | _Part, generator: torch.Generator) -> dict[str, Tensor]:
        """The total loss and its parts."""
        if isinstance(batch, _Part):
            return self._losses(batch)
        found = self.parts(batch, 1, generator)
        return self._losses(found[0]) if found else {}

    def _losses(self, batch: _Part) -> dict[str, Tensor]:
        share, whole = len(batch.rows) / len(batch.batch), len(batch.rows) == len(batch.batch)
        # A process without an image takes part with one that does not count.
        pixels = batch.pixels if len(batch.pixels) else batch.pixels.new_zeros(1, *batch.pixels.shape[1:])
        own = F.normalize(self._embed(pixels, batch.kept).float(), dim=-1)[: len(batch.pixels)]
        images = self.team.gather_with_gradient(own)
        parts = {"class_loss": share * self.modules["class_loss"](images, self.labels[batch.rows].to(self.device))}
        loss = parts["class_loss"]
        if self.captions is not None:
            parts["caption_loss"] = self.captions.of_batch(images, batch.rows, None if whole else batch.batch)
            loss = (1 - self.captions.weight) * loss + self.captions.weight * parts["caption_loss"]
        if self.base is not None:
            with torch.no_grad():
                base = self.team.gather(F.normalize(self.base(pixels).float(), dim=-1)[: len(batch.pixels)])
            parts["distance"] = share * (1 - (images * base).sum(dim=-1)).mean()
            loss = loss + self.keep * parts["distance"]
        return {"loss": loss, **parts}

    def _finish(self, pixels: Tensor, before: int, total: int, generator: torch.Generator) -> Tensor:
        """The pixels of this process's images of a batch as the image tower takes them.

        Args:
            pixels: The images, prepared.
            before: The images of the batch in the processes before this one.
            total: Those in all of them: random numbers are drawn for all, so that they do not depend on their number.
            generator: Of the random numbers.
        """
        draws = self.transform.draw(total, generator)
        if draws is not None:
            draws = draws[before : before + len(pixels)]
        finished = self.transform.finish(pixels.to(self.device, non_blocking=True), draws=draws)
        return finished.contiguous(memory_format=torch.channels_last)

    def _embed(self, pixels: Tensor, kept: Tensor | None) -> Tensor:
        tower = self.modules["image_tower"]
        call: Callable[[Tensor], Tensor] = tower
        rows, missing = len(pixels), self._compile[0] - len(pixels) if self._compile is not None else 0
        compiles = self._compile is not None and not (missing and has_batch_norm(tower))
        if self._compile is not None and compiles and missing:
            # What stands for images that could not be read has no part in the loss, and so no gradient.
            pixels = pad_batch(pixels, self._compile[0]).contiguous(memory_format=torch.channels_last)
        if self._patch_dropout is not None and kept is not None:
            self._patch_dropout.kept = F.pad(kept, (0, 0, 0, len(pixels) - len(kept)))
        if self._compile is not None and compiles:
            if self._compiled is None:
                _, precision, graphs = self._compile
                self._compiled = compiled(tower, tuple(pixels.shape), self.device, precision, graphs=graphs)
            if self._compiled is None:
                self._compile = None
            else:
                call = self._compiled
        return call(pixels)[:rows]

    def after_step(self) -> None:
        """Note what could not be read."""
        self.unreadable |= {self.ids[row]: why for row, why in self.images.unreadable.items()}

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}
