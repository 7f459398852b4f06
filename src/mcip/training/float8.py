"""The linear layers of an image tower's blocks multiplied in 8 bits, by torchao, for as long as it trains."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.core import optional
from mcip.core.choices import Precision
from mcip.core.device import pick_precision
from mcip.core.errors import ConfigError

# Of open_clip's and timm's towers. What is outside of them, the first and last layers, keeps its precision.
_IN_BLOCK: Final = re.compile(r"blocks\.\d+\.")
# Products in 8 bits need sides of multiples of this.
_SIDE: Final = 16


def check_float8(device: torch.device, precision: Precision) -> None:
    """Refuse where products in 8 bits cannot be had.

    Raises:
        ConfigError: torchao is not installed, the device has no such products, or the rest is not in bf16.
    """
    optional.module("torchao.float8")
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the device {device}"
        raise ConfigError(
            f"fp8 needs a GPU that multiplies in 8 bits (compute capability 8.9 or more, as Ada, Hopper and Blackwell "
            f"have it), and {name} does not: leave it out."
        )
    if pick_precision(precision, device) != "bf16":
        raise ConfigError(f"fp8 goes with bf16, not with --precision {precision}: use --precision bf16.")


@contextlib.contextmanager
def float8_products(tower: nn.Module) -> Iterator[None]:
    """Within the block the linear layers of a tower's blocks multiply in 8 bits: e4m3 forward, e5m2 for gradients.

    Each tensor is scaled by its own largest value at each call, so that nothing is kept from step to step. Parameters
    stay the same objects in float32; attention's own products, norms and what is outside of the blocks are not touched.

    Args:
        tower: An image tower whose parameters are not parametrised. Its modules, not its parameters, are exchanged.

    Raises:
        ConfigError: It has no blocks with linear layers whose sides are multiples of 16.

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022.
    """
    float8 = optional.module("torchao.float8")
    # Padding costs nothing where the tokens of a batch are a multiple of 16.
    config = float8.Float8LinearConfig(pad_inner_dim=True)
    exchanged = [
        (parent, name, layer)
        for path, parent in tower.named_modules()
        if not isinstance(parent, nn.MultiheadAttention)
        for name, layer in parent.named_children()
        if _IN_BLOCK.search(f"{path}.{name}.") and _fits(layer)
    ]
    if not exchanged:
        raise ConfigError("fp8: the image tower has no blocks of linear layers for it. Leave it out for this model.")
    try:
        for parent, name, layer in exchanged:
            plain = _Attention(layer) if isinstance(layer, nn.MultiheadAttention) else layer
            setattr(parent, name, float8.convert_to_float8_training(plain, config=config))
        yield
    finally:
        for parent, name, layer in exchanged:
            setattr(parent, name, layer)


def _fits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.MultiheadAttention):
        alike = layer.batch_first and layer.in_proj_weight is not None and not layer.dropout
        return alike and layer.embed_dim % _SIDE == 0
    return isinstance(layer, nn.Linear) and layer.in_features % _SIDE == 0 and layer.out_features % _SIDE == 0


class _Attention(nn.Module):
    """Self-attention with the parameters of `nn.MultiheadAttention`, its projections as linear layers."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.qkv = _linear(attention.in_proj_weight, attention.in_proj_bias)
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, tokens: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: Any) -> tuple[Tensor, None]:
        """What attention gives for tokens (images, tokens, width) that are query, key and value."""
        shape = (*tokens.shape[:2], 3, self.heads, -1)
        query, key, value = self.qkv(tokens).reshape(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.out(mixed.transpose(1, 2).reshape(tokens.shape)), None


def _linear(weight: Any, bias: Any) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight, linear.bias = weight, bias
    return linear
