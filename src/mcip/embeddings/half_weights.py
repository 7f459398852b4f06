"""Weights in the precision of the forward pass, for as long as a tower only embeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mcip.core.choices import Precision
from mcip.core.device import pick_precision

# Autocast casts their inputs and weights before it multiplies, so that casting the weights once changes no bit.
_MULTIPLY = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)


@contextmanager
def half_weights(tower: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """Hold the weights of products in the precision that autocast multiplies in, instead of casting them each time.

    Args:
        tower: The module; its own weights are there again afterwards.
        device: Where it is.
        precision: Of the forward passes; where it is fp32 nothing changes.
    """
    picked = pick_precision(precision, device)
    if picked == "fp32":
        yield
        return
    dtype = torch.bfloat16 if picked == "bf16" else torch.float16
    products = (module for module in tower.modules() if isinstance(module, _MULTIPLY))
    weights = {weight for module in products for weight in module.parameters(recurse=False) if weight.ndim > 1}
    kept = [(weight, weight.data) for weight in weights]
    try:
        for weight, values in kept:
            weight.data = values.to(dtype)
        yield
    finally:
        for weight, values in kept:
            weight.data = values
