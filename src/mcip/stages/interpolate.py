"""Interpolate between a model and the one it was tuned from (WiSE-FT).

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (arXiv:2109.01903), equation 1: along the line from
the weights of the base to those of the tuned model much of what tuning gains is there early, and little of what it
costs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.errors import ConfigError
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ModelInput

if TYPE_CHECKING:
    from torch import Tensor

    from mcip.models import SavedModel


def interpolate(model: ModelInput, base: ModelInput, out: Path, alpha: float = 0.8) -> SavedModel:
    """Write the model whose weights are (1 - alpha) those of `base` and alpha those of `model`.

    Nothing is trained: several alphas can be made of one run in seconds, and the best chosen on validation data. Of
    two models with the same text tower, as before and after `mcip tune`, only the image towers are interpolated.

    Args:
        model: The tuned model: what `mcip.load` takes. Counters, which cannot be interpolated, are those it has.
        base: The model it was tuned from.
        out: The folder to write, which open_clip and every command load.
        alpha: The tuned model's share of the weights: 0 is the base, 1 the tuned model.

    Returns:
        The model folder; it stands for its path.

    Raises:
        ConfigError: `alpha` is not between 0 and 1.
        ModelError: A model cannot be loaded, the two differ in architecture, or `out` is in the way.
        ArtefactError: The disk is full.

    Example:
        >>> import mcip, tempfile
        >>> mcip.interpolate("toyshop", "toyshop", tempfile.mkdtemp(), alpha=0.5).load().embed_dim
        256
    """
    check_one_process()
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}: it is a share between 0 (the base) and 1 (the tuned model).")

    from mcip.models import SavedModel, load, save
    from mcip.models.carried import between, carried, carry
    from mcip.models.state_dict import load_strict

    tuned, start = load(model), load(base)
    if tuned.model_cfg.get("quick_gelu") != start.model_cfg.get("quick_gelu"):
        raise ConfigError(
            f"{tuned.source} and {start.source} differ in their activation (quick_gelu): one was not tuned from the "
            "other."
        )
    made = tuned.copy() if tuned is model else tuned
    starts = start.clip.state_dict()
    weights = {**starts, **_between(starts, made.clip.state_dict(), alpha)}
    load_strict(made.clip, weights, start.source, tuned.source)
    carry(made.clip, between(carried(start.clip), carried(tuned.clip), alpha))
    return SavedModel(save(made, out, {"interpolated": tuned.source, "base": start.source, "alpha": alpha}))


def _between(starts: dict[str, Tensor], ends: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The weights at `alpha`, of the keys and shapes that both have."""
    import torch

    return {
        key: torch.lerp(starts[key].to(end.device), end, alpha) if end.is_floating_point() else end
        for key, end in ends.items()
        if key in starts and starts[key].shape == end.shape
    }
