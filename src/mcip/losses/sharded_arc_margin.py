"""ArcMargin for very many classes: each process holds a part of the class centers, or a sample of them is used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mcip.core.errors import ConfigError
from mcip.core.processes import processes
from mcip.core.shards import is_sharded, local, rows_of_shard
from mcip.losses.arc_margin import apply_margin, check_dimension, check_margin, products_with_unit_rows, unit


class ShardedArcMargin(nn.Module):
    """`ArcMargin` on class centers that are sharded by class, or of which each step uses a sample.

    Each process multiplies the embeddings of the global batch, which all have, by its own centers; the maxima and sums
    of the softmax are exchanged, not the cosines. The margin is applied where a label's center lives.

    With `sample` below 1 a step's classes are its labels and that share of the others, drawn at random; the softmax
    runs over these (An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
    CNNs by Partial FC", CVPR 2022, section 3.2; each class is drawn by itself, so their number varies).

    Attributes:
        weight: The class centers, shape (num_classes, dim); a DTensor where they are sharded.

    Source: Deng et al., "ArcFace", CVPR 2019, equation 3.

    Example:
        >>> loss = ShardedArcMargin(torch.randn(1000, 8), sample=0.1)
        >>> loss.draw(torch.Generator().manual_seed(1))
        >>> loss(torch.randn(4, 8), torch.tensor([0, 2, 999, 0])).shape
        torch.Size([])
    """

    def __init__(self, weight: Tensor, margin: float = 0.1, scale: float = 30.0, sample: float = 1.0) -> None:
        """Take the centers.

        Args:
            weight: The class centers at the start, float of shape (C, D), whole or sharded in the first dimension.
            margin: In radians.
            scale: Multiplies the cosines.
            sample: The share of the classes that a step uses.

        Raises:
            ConfigError: A parameter is out of range.
        """
        super().__init__()
        check_margin(margin, scale)
        if not 0 < sample <= 1:
            raise ConfigError(f"center_sample is {sample}: it is a share of the classes, above 0 and up to 1.")
        self.margin, self.scale, self.sample = margin, scale, sample
        self.weight = nn.Parameter(weight)
        self.team = processes() if is_sharded(weight) else None
        self.start = rows_of_shard(len(weight), self.team).start if self.team else 0
        self._drawn: Tensor | None = None

    def draw(self, generator: torch.Generator) -> None:
        """Draw the classes of the next step, the same in any number of processes.

        Args:
            generator: On the CPU, in the same state in all processes.
        """
        if self.sample < 1:
            count = len(local(self.weight))
            drawn = torch.rand(len(self.weight), generator=generator)[self.start : self.start + count] < self.sample
            self._drawn = drawn.to(self.weight.device)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the global batch, the same in all processes, in float32 (float64 for float64 input).

        Args:
            embeddings: Of the global batch in every process, shape (B, D), normalised or not, any floating dtype.
            labels: Shape (B,), int64, from 0 to num_classes - 1.

        Returns:
            A scalar. Its gradients are those of the whole loss: of the embeddings in every process, of the centers
            where they live.

        Raises:
            ModelError: The embeddings do not have the centers' dimension.
        """
        check_dimension(embeddings, self.weight)
        with torch.autocast(embeddings.device.type, enabled=False):
            images = unit(embeddings)
            if self.team is not None:
                images = _Copied.apply(images, self.team)
            centers, labels = self._centers(labels)
            here = ((labels >= 0) & (labels < len(centers))).nonzero()[:, 0]
            logits = products_with_unit_rows(images * self.scale, centers)
            positives = here, labels[here]
            wide = apply_margin(logits[positives] / self.scale, self.margin) * self.scale
            logits = logits.index_put(positives, wide)
            own = torch.zeros(len(images), dtype=logits.dtype, device=logits.device).index_put((here,), wide)
            if self.team is None:
                return (logits.logsumexp(1) - own).mean()
            largest = logits.detach().amax(1) if logits.shape[1] else torch.full_like(own.detach(), -torch.inf)
            self.team.largest(largest)
            sums = torch.stack([(logits - largest[:, None]).exp().sum(1), own])
            total, own = _Summed.apply(sums, self.team)
            loss: Tensor = (total.log() + largest - own).mean()
            return loss

    def _centers(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The centers of this process that take part, and the number among them of each label; -1 of one elsewhere."""
        centers, numbers = local(self.weight), labels - self.start
        numbers = torch.where((numbers >= 0) & (numbers < len(centers)), numbers, -1)
        if self._drawn is None:
            return centers, numbers
        used, self._drawn = self._drawn, None
        used[numbers[numbers >= 0]] = True
        place = used.cumsum(0) - 1
        padded = torch.cat([place, place.new_tensor([-1])])  # which -1 leads to
        return centers[used], padded[numbers]

    def extra_repr(self) -> str:
        """What `print` shows."""
        classes, dim = self.weight.shape
        return f"num_classes={classes}, dim={dim}, margin={self.margin}, scale={self.scale}, sample={self.sample}"


class _Copied(torch.autograd.Function):
    """The identity; backward sums what the parts of all processes contribute."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, team: Any) -> Tensor:
        ctx.team = team
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.sum(gradient.contiguous().clone()), None


class _Summed(torch.autograd.Function):
    """The sum over the processes; all of them go on alike, so each has the gradient of its summand."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, team: Any) -> Tensor:
        summed: Tensor = team.sum(values.clone())
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
