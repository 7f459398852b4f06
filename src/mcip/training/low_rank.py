"""Low-rank adaptation (LoRA): linear layers learn a product of two thin matrices, which is merged at the end."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mcip.core.errors import ConfigError


class LowRank(nn.Module):
    """Adds up @ down to a weight; up is 0 at the start, so that nothing changes.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, with alpha = rank.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        """Make the factors for a weight of shape (out, in): up (out, rank) and down (rank, in)."""
        super().__init__()
        rows, columns = weight.shape
        bound = 1 / math.sqrt(columns)
        down = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The sum, of the weight's shape; computed in float32, under autocast too."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.up @ self.down


def add_low_rank(module: nn.Module, rank: int, seed: int) -> int:
    """Let the linear layers and attention projections of a module learn by low-rank factors, and nothing else in it.

    Layers whose weight is frozen get none. `merge_low_rank` makes it the module it was.

    Args:
        module: The module; its parameters are frozen, the factors are not.
        rank: The factors' rank.
        seed: Draws the factors.

    Returns:
        The number of weights that got factors.

    Raises:
        ConfigError: The rank is below 1, or there is no linear layer to adapt.
    """
    if rank < 1:
        raise ConfigError(f"lora is {rank}: it is a rank, 1 or more, or 0 for none.")
    weights = [
        (layer, name)
        for layer in module.modules()
        for name in ("weight", "in_proj_weight")
        if isinstance(layer, nn.Linear if name == "weight" else nn.MultiheadAttention)
        and getattr(layer, name, None) is not None
        and getattr(layer, name).requires_grad
    ]
    if not weights:
        raise ConfigError("lora: the image tower has no linear layer that is not frozen. Leave it out for this model.")
    module.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer, name in weights:
        factors = LowRank(getattr(layer, name), rank, generator)
        # The sum has the weight's shape and type: checking it would compute it once more.
        parametrize.register_parametrization(layer, name, factors, unsafe=True)
    return len(weights)


def merge_low_rank(module: nn.Module) -> None:
    """Add the factors to the weights and remove them: names and shapes are again those before `add_low_rank`."""
    for layer in [layer for layer in module.modules() if parametrize.is_parametrized(layer)]:
        for name in [*cast(nn.ModuleDict, layer.parametrizations)]:
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    module.requires_grad_(True)
