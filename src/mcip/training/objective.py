"""What the training loop takes: modules, groups of parameters, batches and a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

Batch: TypeAlias = Any


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay and whose gradients are clipped together."""

    name: str
    parameters: list[nn.Parameter]
    lr: float
    weight_decay: float


class Objective(Protocol):
    """What is trained, on what, and how it is validated.

    Attributes:
        modules: The modules in training, by name.
        split: Those of them that see this process's rows of a batch only, where there are several processes; what is
            left is computed alike in all. Empty where an objective cannot be trained by several.
        groups: Their parameters.
        tensors: Everything that training changes, by name: it is kept in checkpoints.
        unreadable: Images that could not be read so far: id to reason. It is kept in checkpoints.
    """

    modules: dict[str, nn.Module]
    split: tuple[str, ...]
    groups: list[Group]
    tensors: dict[str, torch.Tensor]
    unreadable: dict[str, str]

    def batches(self, steps: range) -> Iterator[Batch]:
        """One batch per step."""

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Scalars by name; `loss` is minimised, the others are logged. Empty where nothing in it could be read."""

    def after_step(self) -> None:
        """Called after each optimiser step."""

    def validate(self) -> dict[str, float]:
        """Scores by name, higher is better; empty where there is nothing to validate on."""
