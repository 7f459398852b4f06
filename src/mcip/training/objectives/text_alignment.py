"""The objective of Re-A (`mcip.align`): the text tower is trained against stored image embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.embeddings.store import Embeddings
from mcip.losses import bound_logit_scale, info_nce
from mcip.models import Model
from mcip.models.text_tower import TextTower
from mcip.training.captions import decayed_groups, draw_captions
from mcip.training.order import EpochOrder


class TextAlignment:
    """InfoNCE between stored image embeddings and captions; all of the text tower that is not locked is trained.

    The image tower is taken out of the model while it trains; `give_back` puts it in again.

    Example:
        >>> images = embed_images(table, model, Path("runs/re-a/images"))  # doctest: +SKIP
        >>> order = EpochOrder(len(table), batch_size=1024, seed=0)  # doctest: +SKIP
        >>> objective = TextAlignment(model, images, table.captions, order, lr=1e-5)  # doctest: +SKIP
        >>> fit(objective, Path("runs/re-a/checkpoints"), FitSettings(steps=1000))  # doctest: +SKIP
        >>> objective.give_back()  # doctest: +SKIP
    """

    split: tuple[str, ...] = ()

    def __init__(
        self,
        model: Model,
        images: Embeddings,
        captions: list[list[str]],
        order: EpochOrder,
        *,
        lr: float,
        weight_decay: float = 0.2,
        seed: int = 0,
        device: str | torch.device = "cpu",
        validation: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Put what is trained on the device.

        Args:
            model: The model that is realigned, in place.
            images: The embeddings of the images by the model's image tower.
            captions: The captions of each of them.
            order: Which of them each step sees.
            lr: Learning rate.
            weight_decay: AdamW's weight decay, of matrices only.
            seed: Seeds the choice of captions.
            device: Where to train.
            validation: Gives scores by name.
        """
        self.model, self.images, self.captions, self.order = model, images, captions, order
        self.device, self.seed, self.validation = torch.device(device), seed, validation
        self.unreadable: dict[str, str] = {}
        clip = model.clip
        # The image tower is not needed: it stays away from the device.
        self.image_tower, clip.visual = clip.visual.cpu(), None
        clip.logit_scale.requires_grad_(True)
        if getattr(clip, "logit_bias", None) is not None:
            clip.logit_bias.requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"text_tower": TextTower(clip).to(self.device)}
        trained = {name: p for name, p in clip.named_parameters() if p.requires_grad}
        self.tensors = {name: parameter.detach() for name, parameter in trained.items()}
        self.groups = decayed_groups(trained.values(), lr, weight_decay)

    def batches(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The stored vectors of each step's images, and the tokens of one caption of each."""
        for step in steps:
            rows = self.order.batch(step)
            texts = draw_captions(self.captions, rows, self.seed, step)
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
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}

    def give_back(self) -> None:
        """Put the image tower back into the model."""
        self.model.clip.visual = self.image_tower.to(self.device)
