"""The objective of Re-A (`mcip.align`): the text tower is trained against stored image embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mcip.core.choices import PairLoss, Precision
from mcip.core.device import pick_precision
from mcip.core.errors import ConfigError
from mcip.core.prefetch import prefetch
from mcip.core.processes import processes
from mcip.embeddings.caption_tokens import CaptionTokens
from mcip.embeddings.store import Embeddings
from mcip.losses import blocked_info_nce, blocked_sigmoid, bound_logit_scale
from mcip.models import Model
from mcip.models.footprint import text_footprint
from mcip.models.text_tower import TextTower, looks_back_only, padded_length
from mcip.training.captions import decayed_groups, draw_places
from mcip.training.objective import Group
from mcip.training.order import EpochOrder

# The share of a CUDA device's memory for what backward needs of a chunk, and the bytes for it on other devices.
CHUNK_SHARE: Final = 0.5
_BYTES_ELSEWHERE: Final = 4e9
# Captions by which is counted what one takes, and what the casts of the weights take.
_COUNTED: Final = 64


@dataclass(frozen=True)
class PairBatch:
    """The share of one process in a step.

    Attributes:
        images: The stored vectors of its images, float32 (b, D).
        chunks: The tokens of a caption of each, int64, in chunks that follow each other.
    """

    images: Tensor
    chunks: list[Tensor]


class TextAlignment:
    """A contrastive loss between stored image embeddings and captions; what is not locked of the text tower is trained.

    Where the captions of a step are more than a chunk, their gradients are cached: all are embedded without a graph,
    the loss is computed on all pairs, and each chunk is embedded again for its part of the gradient (Gao, Zhang, Han,
    Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021). The result is
    that of the whole batch, up to rounding.

    The image tower is taken out of the model while it trains; `give_back` puts it in again.

    Example:
        >>> images = embed_images(table, model, Path("runs/re-a/images"))  # doctest: +SKIP
        >>> tokens = tokenize_captions(table, model, Path("runs/re-a/tokens"))  # doctest: +SKIP
        >>> order = EpochOrder(len(table), batch_size=32768, seed=0)  # doctest: +SKIP
        >>> objective = TextAlignment(model, images, tokens, order, lr=1e-5)  # doctest: +SKIP
        >>> fit(objective, Path("runs/re-a/checkpoints"), FitSettings(steps=1000))  # doctest: +SKIP
        >>> objective.give_back()  # doctest: +SKIP

    Attributes:
        loss: "infonce" or "sigmoid".
        calibrated: Whether the loss trains all that makes probabilities of cosines: for models with a logit bias, the
            sigmoid loss alone does.
    """

    split: tuple[str, ...] = ("text_tower",)

    def __init__(
        self,
        model: Model,
        images: Embeddings,
        captions: CaptionTokens,
        order: EpochOrder,
        *,
        lr: float,
        loss: PairLoss = "auto",
        chunk: int | None = None,
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
            loss: "infonce", "sigmoid", or "auto": the sigmoid loss for a model with a logit bias.
            chunk: Captions that are embedded at a time with what backward needs; all of a step if not given.
            weight_decay: AdamW's weight decay, of matrices only.
            seed: Seeds the choice of captions.
            device: Where to train.
            validation: Gives scores by name.

        Raises:
            ConfigError: The sigmoid loss is chosen for a model without a logit bias, `chunk` is below 1, or there are
                more processes than pairs in a step.
        """
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk is {chunk}: it is a number of captions, 1 or more.")
        self.model, self.images, self.captions, self.order = model, images, captions, order
        self.device, self.seed, self.validation = torch.device(device), seed, validation
        self.unreadable: dict[str, str] = {}
        self.team = processes()
        if order.batch_size < self.team.count:
            raise ConfigError(f"A step of {order.batch_size} pairs is too small for {self.team.count} processes.")
        clip = model.clip
        self.loss = _loss_of(model, loss)
        biased = getattr(clip, "logit_bias", None) is not None
        self.calibrated = self.loss == "sigmoid" or not biased
        self._chunk = chunk or order.batch_size
        tower = getattr(clip, "text", clip)
        self._context, self._shortens = captions.context_length, looks_back_only(tower)
        # SigLIP's scale may start above CLIP's bound.
        self._highest_scale = math.inf if self.loss == "sigmoid" else max(math.log(100), clip.logit_scale.item())
        # The image tower is not needed: it stays away from the device.
        self.image_tower, clip.visual = clip.visual.cpu(), None
        clip.logit_scale.requires_grad_(True)
        if biased:
            clip.logit_bias.requires_grad_(self.loss == "sigmoid")
        self.modules: dict[str, nn.Module] = {"text_tower": _Captions(TextTower(clip)).to(self.device)}
        trained = {name: p for name, p in clip.named_parameters() if p.requires_grad}
        self.tensors = {name: parameter.detach() for name, parameter in trained.items()}
        self.groups: list[Group] = decayed_groups(trained.values(), lr, weight_decay)

    def batches(self, steps: range) -> Iterator[PairBatch]:
        """The stored vectors of each step's images, and the tokens of one caption of each; read one step ahead."""
        return prefetch(map(self._batch, steps))

    def _batch(self, step: int) -> PairBatch:
        rows = np.asarray(self.order.batch(step))
        first = self.captions.first[rows]
        captions = first + draw_places(self.captions.first[rows + 1] - first, self.seed, step)
        lengths = self.captions.lengths(captions)
        # Captions of like length share a chunk, which takes the time of its longest; each process gets all lengths.
        mine = np.argsort(lengths, kind="stable")[self.team.rank :: self.team.count]
        chunks = []
        for start in range(0, len(mine), self._chunk):
            part = mine[start : start + self._chunk]
            width = padded_length(int(lengths[part].max()), self._context) if self._shortens else self._context
            chunks.append(torch.from_numpy(self.captions.take(captions[part], width)))
        return PairBatch(torch.from_numpy(self.images.take(rows[mine])), chunks)

    def losses(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss over all pairs of all processes, and the logit scale to be logged."""
        images = self.team.gather(batch.images.to(self.device, non_blocking=True))
        chunks = [tokens.to(self.device, non_blocking=True) for tokens in batch.chunks]
        texts, scale, bias = self.modules["text_tower"](chunks)
        texts = self.team.gather_with_gradient(texts)
        if self.loss == "sigmoid":
            loss = blocked_sigmoid(images, texts, self._alike(scale), self._alike(bias), team=self.team)
        else:
            loss = blocked_info_nce(images, texts, self._alike(scale), team=self.team)
        return {"loss": loss, "logit_scale": scale}

    def _alike(self, scalar: Tensor) -> Tensor:
        """What every process has the whole gradient of: a share of it in each adds up to the whole."""
        return scalar.detach() + (scalar - scalar.detach()) / self.team.count

    def after_step(self) -> None:
        """Keep the logit scale within CLIP's bound, which the sigmoid loss does not need."""
        bound_logit_scale(self.model.clip.logit_scale, self._highest_scale)

    def validate(self) -> dict[str, float]:
        """The validation's scores, if there is one."""
        return self.validation() if self.validation else {}

    def give_back(self) -> None:
        """Put the image tower back into the model."""
        self.model.clip.visual = self.image_tower.to(self.device)


class _Captions(nn.Module):
    """The features of captions in chunks, each of unit length, and the logit scale and bias."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, chunks: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        if len(chunks) == 1:
            features = [self._features(chunks[0])]
        else:
            features = [checkpoint(self._features, tokens, use_reentrant=False) for tokens in chunks]
        clip = self.tower.clip
        return torch.cat(features), clip.logit_scale.exp(), getattr(clip, "logit_bias", None)

    def _features(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower(tokens, shorten=False).float(), dim=-1)


def automatic_chunk(
    model: Model,
    captions: CaptionTokens,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
    grad_checkpointing: bool = False,
) -> int:
    """How many captions fit on a device with what backward needs of them: counted, not tried out.

    The answer depends on the kind of device alone, so that a resumed run gets the same.

    Args:
        model: The model, with its image tower or without.
        captions: The captions, of which the longest counts.
        batch_size: Captions per step on this device.
        device: Half of the memory of a CUDA device may be taken, 4 GB of any other.
        precision: The precision of the training.
        grad_checkpointing: Whether activations are computed again in the backward pass.
    """
    length = captions.context_length
    if looks_back_only(getattr(model.clip, "text", model.clip)):
        length = padded_length(captions.longest, length)
    cuda = device.type == "cuda"
    limit = CHUNK_SHARE * torch.cuda.get_device_properties(device).total_memory if cuda else _BYTES_ELSEWHERE
    return chunk_within(limit, model, batch_size, length, pick_precision(precision, device), grad_checkpointing)


def chunk_within(
    limit: float, model: Model, batch_size: int, length: int, precision: Precision, grad_checkpointing: bool
) -> int:
    """How many captions of a batch to take at a time so that backward needs at most `limit` bytes for them.

    The parts of the batch are as equal as they can be. For the other arguments see `text_footprint`.
    """
    once, twice = (
        text_footprint(model, count * _COUNTED, length, precision, grad_checkpointing).activation_bytes
        for count in (1, 2)
    )
    each = (twice - once) / _COUNTED
    most = max(1, int((limit - (2 * once - twice)) / each))
    return -(-batch_size // -(-batch_size // most))


def _loss_of(model: Model, loss: PairLoss) -> PairLoss:
    biased = getattr(model.clip, "logit_bias", None) is not None
    if loss == "auto":
        return "sigmoid" if biased else "infonce"
    if loss == "sigmoid" and not biased:
        raise ConfigError(
            f"The sigmoid loss needs a logit bias, which {model.source} does not have: use --loss infonce."
        )
    return loss
