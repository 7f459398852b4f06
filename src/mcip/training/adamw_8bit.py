"""AdamW whose two moments take 8 bits a value, by torchao."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from mcip.core import optional


def adamw_8bit(groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    """AdamW8bit of torchao: moments in blocks of 256 values, each with the block's own scale.

    Those of tensors with fewer than 4,096 values, or whose number is no multiple of 256, stay in float32. The update of
    each shape is compiled on CUDA, where it would otherwise need several float32 copies of the largest tensor. Where
    the loop has set `found_inf`, as for torch's own fused AdamW, no step is made; reading it makes the host wait.

    Args:
        groups: As torch.optim takes them, each with its `lr`.
        betas: Of the two moments.
        eps: Added to the denominator.

    Raises:
        ConfigError: torchao is not installed.

    Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022.
    """
    library = optional.module("torchao.optim")

    class AdamW8bit(library.AdamW8bit):  # type: ignore[misc, name-defined]
        found_inf: torch.Tensor | None = None

        def step(self, closure: None = None) -> None:
            if self.found_inf is not None and self.found_inf.item():
                return
            on_cuda = any(parameter.is_cuda for group in self.param_groups for parameter in group["params"])
            with contextlib.nullcontext() if on_cuda else torch.compiler.set_stance("force_eager"):
                super().step(closure)

    optimizer: torch.optim.Optimizer = AdamW8bit(groups, betas=betas, eps=eps)
    return optimizer
