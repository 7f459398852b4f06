"""Which parameters are trained, and how fast each: freezing by name, layer-wise decay of the learning rate, AdamW."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import torch
from timm.models import group_parameters
from torch import nn

from mcip.core.choices import OptimizerName
from mcip.core.errors import ConfigError
from mcip.training.adamw_8bit import adamw_8bit
from mcip.training.objective import Group

# open_clip's towers: the blocks, in order, and what comes after them. Everything else comes before them.
_BLOCK: Final = re.compile(r"transformer\.resblocks\.(\d+)\.|layer(\d+)\.(\d+)\.")
_HEAD: Final = re.compile(r"ln_post\b|proj\b|attn_pool\b|attnpool\b|head\b")


def make_optimizer(
    groups: Sequence[Group], betas: tuple[float, float], eps: float, name: OptimizerName = "adamw"
) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, those of a group that learn fastest first; see `set_learning_rates`.

    Raises:
        ConfigError: A learning rate or a weight decay is below 0 or no number, or `name` is "adamw8bit" and torchao is
            not installed.
    """
    parts = []
    for group in groups:
        for what, value in (("learning rate", group.lr), ("weight decay", group.weight_decay)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"The {what} of the {group.name} is {value}: it is a number, 0 or more.")
        factors = group.lr_factors or [1.0] * len(group.parameters)
        for factor in sorted(set(factors), reverse=True):
            chosen = [p for p, of_it in zip(group.parameters, factors, strict=True) if of_it == factor]
            lr = group.lr * factor
            parts.append({"params": chosen, "lr": lr, "base_lr": lr, "weight_decay": group.weight_decay})
    if name == "adamw8bit":
        return adamw_8bit(parts, betas, eps)
    return torch.optim.AdamW(parts, betas=betas, eps=eps, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rates that the groups gave by the schedule's factor."""
    for part in optimizer.param_groups:
        lr = part["base_lr"] * factor
        # A compiled optimiser reads it from a tensor.
        part["lr"] = part["lr"].fill_(lr) if isinstance(part["lr"], torch.Tensor) else lr


def layer_factors(visual: nn.Module, decay: float) -> dict[str, float]:
    """What the learning rate of each parameter of an image tower is multiplied by: decay ^ (layers above its own).

    The layers of open_clip's vision transformers and ResNets are what comes before the blocks, each block, and what
    comes after them. Those of timm's towers are timm's own; a projection behind them belongs to the last.

    Args:
        visual: The image tower.
        decay: Above 0, at most 1. 0.75 for a ViT-B: each block learns at three quarters of the rate of the next.

    Returns:
        The factor of each parameter, by name; 1 for the last layer.

    Raises:
        ConfigError: The decay is out of range, or the tower's layers are not known.

    Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022 (layer-wise decay in fine-tuning).
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"layer_decay is {decay}: it is above 0 and at most 1, which is no decay.")
    layers = _layers(visual)
    last = max(layers.values())
    if last == 0:
        raise ConfigError("layer_decay: the layers of this image tower are not known. Leave it out for this model.")
    return {name: decay ** (last - layer) for name, layer in layers.items()}


def freeze_parameters(visual: nn.Module, pattern: str) -> list[str]:
    """Keep the parameters of an image tower whose name matches a regular expression as they are.

    Batch normalisation whose parameters are all kept stays in evaluation mode: its statistics are kept too.

    Args:
        visual: The image tower.
        pattern: It may match anywhere in the name, as in `conv1|ln_pre|resblocks.[0-5][.]`.

    Returns:
        The names of the parameters that are kept.

    Raises:
        ConfigError: It is not a regular expression, or it matches no parameter, or all of them.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"freeze {pattern!r} is no regular expression: {error}.") from error
    parameters = dict(visual.named_parameters())
    kept = [name for name in parameters if expression.search(name)]
    if len(kept) in (0, len(parameters)):
        count = "no parameter" if not kept else "every parameter"
        names = ", ".join([*parameters][:3])
        raise ConfigError(f"freeze {pattern!r} matches {count} of the image tower; names are like {names}.")
    for name in kept:
        parameters[name].requires_grad_(False)
    for module in visual.modules():
        if not any(parameter.requires_grad for parameter in module.parameters()):
            freeze_statistics(module)
    return kept


def freeze_statistics(module: nn.Module) -> None:
    """Let batch normalisation within a module use its running means and variances in training too, unchanged."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            _stay_in_evaluation(part)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether what a module computes for an image depends on the others of the batch."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in module.modules())


def _stay_in_evaluation(module: nn.Module) -> None:
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]


def _layers(visual: nn.Module) -> dict[str, int]:
    """The number of the layer of each parameter, counted from 0 without gaps."""
    places = _timm_layers(visual) if hasattr(visual, "trunk") else {}
    if not hasattr(visual, "trunk"):
        for name, _ in visual.named_parameters():
            block = _BLOCK.match(name)
            numbers = tuple(int(number) for number in block.groups() if number) if block else ()
            places[name] = (2,) if _HEAD.match(name) else (1, *numbers) if block else (0,)
    numbers_of = {place: number for number, place in enumerate(sorted(set(places.values())))}
    return {name: numbers_of[place] for name, place in places.items()}


def _timm_layers(visual: Any) -> dict[str, tuple[int, ...]]:
    if not hasattr(visual.trunk, "group_matcher"):
        return dict.fromkeys(dict(visual.named_parameters()), (0,))
    by_layer = group_parameters(visual.trunk, visual.trunk.group_matcher(coarse=False))
    places = {f"trunk.{name}": (layer,) for layer, names in by_layer.items() for name in names}
    last = max(places.values())
    return {name: places.get(name, last) for name, _ in visual.named_parameters()}
