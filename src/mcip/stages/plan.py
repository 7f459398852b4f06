"""What a run takes, before there are data or a GPU: memory by part, FLOPs, time, disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.choices import OptimizerName, Precision
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices

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
    optimizer: OptimizerName | None = None,
    chunk: int | None = None,
    memory_gb: float = 80.0,
    rate: float | None = None,
) -> Plan:
    """Say what `mcip tune`, or `mcip align` for a recipe of Re-A, would take: FLOPs, memory by part, time, disk.

    Nothing is loaded, downloaded or run: the model is made without weights, and its forward pass counted on tensors
    without content. Sizes of data are the paper's if not given.

    Args:
        recipe: The name of a recipe, as `mcip tune --recipe` takes it.
        model: Instead of the recipe's, or of a recipe: an open_clip name; its weights are not fetched.
        batch_size: Images per step; the recipe's if not given, else 128.
        steps: Training steps; the recipe's if not given, else one epoch.
        classes: Classes of the labelled images.
        images: Labelled images.
        captions: Captions of the pool; for Re-A, pairs.
        precision: The recipe's if not given, else bf16.
        grad_checkpointing: The recipe's if not given.
        accumulate: Parts in which each batch is taken; the recipe's if not given, else 1.
        keep: As `mcip tune` takes it: above 0 there is a copy of the image tower. The recipe's if not given, else 0.
        ema: As `mcip tune` takes it: above 0 there is a copy of all weights. The recipe's if not given, else 0.
        optimizer: As `mcip tune` takes it: "adamw8bit" has smaller moments. The recipe's if not given, else "adamw".
        chunk: Captions that Re-A embeds at a time with what backward needs; what half of the memory holds if not
            given.
        memory_gb: The device's memory, in 10^9 bytes.
        rate: Images, or pairs, per second, measured by `benchmarks/gpu.py` or a first run; what was measured on one
            H200, or 42 % (Re-A: 13 %) of its matrix rate, if not given.

    Returns:
        The plan, a table when it is shown.

    Raises:
        ConfigError: There is no such recipe, or neither a recipe nor a model is given.
        ModelError: There is no such model.

    Example:
        >>> mcip.plan(model="ViT-B-32", batch_size=128, classes=1000).memory["activations"] > 10**9
        True
    """
    check_choices(plan, locals())
    if recipe is None and model is None:
        raise ConfigError("Give the name of a recipe, or a model, or both.")
    if accumulate is not None and accumulate < 1:
        raise ConfigError(f"accumulate is {accumulate}: it is a number of parts, 1 or more.")
    from mcip.recipes import read_recipe
    from mcip.training.plan import make_align_plan, make_plan

    stages = read_recipe(recipe) if recipe is not None else {"tune": {}}
    given = stages["tune"] if "tune" in stages else stages["align"]
    # Re-A goes on with what MCIP made of the same base.
    name = model or given.get("model") or read_recipe(f"{str(recipe).removesuffix('-re-a')}-mcip")["tune"]["model"]
    batch_size = batch_size or int(given.get("batch_size", 128))
    steps = steps or given.get("steps")
    precision = precision or given.get("precision", "bf16")
    grad_checkpointing = bool(given.get("grad_checkpointing")) if grad_checkpointing is None else grad_checkpointing
    if "tune" not in stages:
        return make_align_plan(
            str(name), batch_size=batch_size, steps=steps, captions=captions,
            unlocked_layers=given.get("unlocked_layers"), chunk=chunk or given.get("chunk"), precision=precision,
            grad_checkpointing=grad_checkpointing, memory_gb=memory_gb, rate=rate,
        )  # fmt: skip
    return make_plan(
        str(name), batch_size=batch_size, steps=steps, classes=classes, images=images, captions=captions,
        precision=precision, grad_checkpointing=grad_checkpointing,
        accumulate=given.get("accumulate", 1) if accumulate is None else accumulate,
        keep=given.get("keep", 0.0) if keep is None else keep,
        ema=given.get("ema", 0.0) if ema is None else ema, optimizer=optimizer or given.get("optimizer", "adamw"),
        memory_gb=memory_gb, rate=rate,
    )  # fmt: skip
