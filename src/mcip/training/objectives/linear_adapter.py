"""The objective of `mcip.adapt`: a matrix on stored image embeddings, and the class centers, are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mcip.training.objective import Group
from mcip.training.objectives.image_tuning import CaptionTerm
from mcip.training.order import EpochOrder


class LinearAdapter:
    """A D x D matrix, the identity at its start, that makes stored image embeddings better at retrieval.

    With x an embedding of the base and y = x M, normalised, the loss is (1 - w) class loss(y) + w caption loss(y) +
    keep (1 - x y), w being the caption term's weight. A linear layer with class supervision on frozen embeddings is
    what ILIAS (Kordopatis-Zilos et al., CVPR 2025) found to be the best cheap step for vision-language models.
    """

    split: tuple[str, ...] = ()

    def __init__(
        self,
        vectors: NDArray[np.float32],
        labels: Sequence[str],
        order: EpochOrder,
        class_loss: nn.Module,
        *,
        lr: float,
        class_lr: float,
        weight_decay: float = 0.0,
        keep: float = 0.0,
        captions: CaptionTerm | None = None,
        device: str | torch.device = "cpu",
        validation: Callable[[Tensor], dict[str, float]] | None = None,
    ) -> None:
        """Put what is trained on the device.

        Args:
            vectors: The embeddings of labelled images by the base's image tower, float32 of shape (N, D).
            labels: The label of each of them.
            order: Which of them each step sees.
            class_loss: Takes embeddings (B, D) of unit length and labels (B,), numbers of the sorted classes.
            lr: Learning rate of the matrix.
            class_lr: Learning rate of the class loss's parameters.
            weight_decay: AdamW's weight decay of the class loss's parameters; the matrix has none, since zero is not
                where it should go.
            keep: Weight of the penalty on leaving the base's embeddings.
            captions: The captions' part of the loss.
            device: Where to train.
            validation: Takes the matrix, and gives scores by name.
        """
        self.vectors, self.order, self.captions, self.keep = vectors, order, captions, keep
        self.device, self.validation = torch.device(device), validation
        self.unreadable: dict[str, str] = {}
        self.classes = sorted(set(labels))
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[label] for label in labels])
        self.layer = nn.Linear(vectors.shape[1], vectors.shape[1], bias=False).to(self.device)
        nn.init.eye_(self.layer.weight)
        class_loss.to(self.device)
        self.modules: dict[str, nn.Module] = {"layer": self.layer, "class_loss": class_loss}
        self.tensors = {"layer.weight": self.layer.weight.detach()}
        self.tensors |= {f"class_loss.{name}": tensor for name, tensor in class_loss.state_dict().items()}
        self.groups = [
            Group("matrix", list(self.layer.parameters()), lr, 0.0),
            Group("class loss", list(class_loss.parameters()), class_lr, weight_decay),
        ]

    @property
    def matrix(self) -> Tensor:
        """M, float32 of shape (D, D), on the CPU: an embedding x becomes x M, normalised."""
        return self.layer.weight.detach().T.cpu().contiguous()

    def batches(self, steps: range) -> Iterator[tuple[Tensor, list[int]]]:
        """The stored embeddings and the rows of each step."""
        for step in steps:
            rows = self.order.batch(step)
            yield torch.from_numpy(self.vectors[np.asarray(rows)]), rows

    def losses(self, batch: tuple[Tensor, list[int]], generator: torch.Generator) -> dict[str, Tensor]:
        """The total loss and its parts."""
        images, rows = batch[0].to(self.device, non_blocking=True), batch[1]
        adapted = F.normalize(self.modules["layer"](images).float(), dim=-1)
        parts = {"class_loss": self.modules["class_loss"](adapted, self.labels[rows].to(self.device))}
        loss = parts["class_loss"]
        if self.captions is not None:
            parts["caption_loss"] = self.captions.of_batch(adapted, rows)
            loss = (1 - self.captions.weight) * loss + self.captions.weight * parts["caption_loss"]
        if self.keep:
            parts["distance"] = (1 - (adapted * images).sum(dim=-1)).mean()
            loss = loss + self.keep * parts["distance"]
        return {"loss": loss, **parts}

    def after_step(self) -> None:
        """Nothing is to be done."""

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation(self.matrix) if self.validation else {}
