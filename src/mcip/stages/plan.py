"""What a run takes, before there are data or a GPU: memory by part, FLOPs, time, disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.choices import Precision
from mcip.core.errors import ConfigError

if TYPE_CHECKING:
    from mcip.training.plan import Plan


def plan(
    recipe: str | None = None,
    *,
    model: str | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    classes: int = 169_130,
    images: int = 22_000_000,
    captions: int = 11_000_000,
    precision: Precision | None = None,
    grad_checkpointing: bool | None = None,
    accumulate: int | None = None,
    keep: float | None = None,
    ema: float | None = None,
    memory_gb: float = 80.0,
    rate: float | None = None,
) -> Plan:
    """Say what `mcip tune` would take: parameters, FLOPs, memory by part, time, and bytes of each artefact.

    Nothing is loaded, downloaded or run: the model is made without weights, and its forward pass counted on tensors
    without content. Sizes of data are the paper's if not given.

    Args:
        recipe: The name of a recipe, as `mcip tune --recipe` takes it.
        model: Instead: an open_clip name; its weights are not fetched.
        batch_size: Images per step; the recipe's if not given, else 128.
        steps: Training steps; the recipe's if not given, else one epoch.
        classes: Classes of the labelled images.
        images: Labelled images.
        captions: Captions of the pool.
        precision: The recipe's if not given, else bf16.
        grad_checkpointing: The recipe's if not given.
        accumulate: Parts in which each batch is taken; the recipe's if not given, else 1.
        keep: As `mcip tune` takes it: above 0 there is a copy of the image tower. The recipe's if not given, else 0.
        ema: As `mcip tune` takes it: above 0 there is a copy of all weights. The recipe's if not given, else 0.
        memory_gb: The device's memory, in 10^9 bytes.
        rate: Images per second, measured by `benchmarks/tune_throughput.py` or a first run; what was measured on one
            H200, or 42 % of its matrix rate, if not given.

    Returns:
        The plan, a table when it is shown.

    Raises:
        ConfigError: There is no such recipe, or neither a recipe nor a model is given.
        ModelError: There is no such model.

    Example:
        >>> mcip.plan(model="ViT-B-32", batch_size=128, classes=1000).memory["activations"] > 10**9
        True
    """
    if (recipe is None) == (model is None):
        raise ConfigError("Give the name of a recipe, or a model: one of them.")
    from mcip.recipes import read_recipe
    from mcip.training.plan import make_plan

    given = read_recipe(recipe).get("tune") if recipe is not None else {}
    if accumulate is not None and accumulate < 1:
        raise ConfigError(f"accumulate is {accumulate}: it is a number of parts, 1 or more.")
    if given is None:
        raise ConfigError(f"The recipe {recipe} has no stage tune, the only one that is planned.")
    return make_plan(
        str(model or given["model"]),
        batch_size=batch_size or int(given.get("batch_size", 128)),
        steps=steps or given.get("steps"),
        classes=classes,
        images=images,
        captions=captions,
        precision=precision or given.get("precision", "bf16"),
        grad_checkpointing=bool(given.get("grad_checkpointing")) if grad_checkpointing is None else grad_checkpointing,
        accumulate=given.get("accumulate", 1) if accumulate is None else accumulate,
        keep=given.get("keep", 0.0) if keep is None else keep,
        ema=given.get("ema", 0.0) if ema is None else ema,
        memory_gb=memory_gb,
        rate=rate,
    )
