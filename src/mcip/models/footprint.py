"""What a tower costs to run, counted without running it: parameters, FLOPs, bytes that backward needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mcip.models.model import Model
from mcip.models.text_tower import TextTower


@dataclass(frozen=True)
class Footprint:
    """What one training step of a tower needs.

    Attributes:
        parameters: Trained parameters.
        forward_flops: Floating-point operations of one input's forward pass; a training step takes three times as many.
        activation_bytes: Bytes that the forward pass of a batch keeps for the backward pass, casts of weights included.
    """

    parameters: int
    forward_flops: float
    activation_bytes: int


def image_footprint(
    model: Model, batch_size: int, precision: str = "bf16", grad_checkpointing: bool = False
) -> Footprint:
    """Count what a batch costs an image tower.

    The forward pass runs on tensors that have shapes but no content, so no memory is taken and no device is needed.

    Args:
        model: Any model; its weights are not changed.
        batch_size: Images per step.
        precision: "fp32", or "bf16" and "fp16" under autocast.
        grad_checkpointing: Whether activations are computed again in the backward pass.
    """
    visual = model.clip.visual
    if grad_checkpointing:
        visual.set_grad_checkpointing(True)
    was_training = visual.training
    visual.train()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, fake_parameters(visual, fake):
            pixels = torch.empty(batch_size, 3, model.image_size, model.image_size)
            return _count(visual, pixels, precision)
    finally:
        visual.train(was_training)
        if grad_checkpointing:
            visual.set_grad_checkpointing(False)


def text_footprint(
    model: Model, batch_size: int, length: int, precision: str = "bf16", grad_checkpointing: bool = False
) -> Footprint:
    """Count what a batch of captions costs a text tower; see `image_footprint`.

    Args:
        model: Any model; its weights are not changed.
        batch_size: Captions per forward pass.
        length: Tokens per caption: the context length, or fewer where the tower `looks_back_only`.
        precision: "fp32", or "bf16" and "fp16" under autocast.
        grad_checkpointing: Whether activations are computed again in the backward pass.
    """
    tower = TextTower(model.clip)
    transformer = getattr(model.clip, "text", model.clip).transformer
    before = transformer.training, transformer.grad_checkpointing
    transformer.train()
    transformer.grad_checkpointing = grad_checkpointing
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, fake_parameters(tower, fake):
            tokens = torch.zeros(batch_size, length, dtype=torch.int64)
            counted = _count(tower, tokens, precision, shorten=False)
            return replace(counted, parameters=sum(p.numel() for p in model.text_parameters()))
    finally:
        transformer.train(before[0])
        transformer.grad_checkpointing = before[1]


def _count(tower: nn.Module, inputs: Tensor, precision: str, **settings: bool) -> Footprint:
    weights = {_storage(tensor) for tensor in (*tower.parameters(), *tower.buffers())}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no two storages have the same address

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping={
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    })  # fmt: skip
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", dtype=dtype, enabled=precision != "fp32"), hooks, counter:
        tower(inputs, **settings)
    parameters = sum(parameter.numel() for parameter in tower.parameters())
    return Footprint(parameters, counter.get_total_flops() / len(inputs), sum(kept.values()))


def _attention_flops(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Two products: queries by keys, and their weights by values."""
    batch_and_heads, length, width = math.prod(query[:2]), query[2], query[3]
    return 2 * batch_and_heads * length * key[2] * (width + value[3])


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def fake_parameters(module: nn.Module, fake: FakeTensorMode) -> Iterator[None]:
    """Let a module have parameters and buffers without content while the block runs."""
    places: list[tuple[dict[str, Any], str, Tensor]] = [
        (table, name, tensor)
        for owner in module.modules()
        for table in (owner._parameters, owner._buffers)
        for name, tensor in table.items()
        if tensor is not None
    ]
    try:
        for table, name, tensor in places:
            empty = fake.from_tensor(tensor.detach())
            table[name] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
        yield
    finally:
        for table, name, tensor in places:
            table[name] = tensor
