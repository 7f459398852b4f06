"""What is changed in an image tower for training."""

from __future__ import annotations

from typing import Any

import open_clip
from timm.layers.patch_dropout import PatchDropout

from mcip.core.errors import ConfigError


def drop_patches(visual: Any, share: float) -> None:
    """Let a vision transformer leave out this share of its patches in training.

    Raises:
        ConfigError: The image tower is not a vision transformer.
    """
    trunk: Any = getattr(visual, "trunk", visual)
    if hasattr(visual, "patch_dropout"):
        visual.patch_dropout = open_clip.transformer.PatchDropout(share)
    elif hasattr(trunk, "patch_drop"):
        trunk.patch_drop = PatchDropout(share, num_prefix_tokens=trunk.num_prefix_tokens)
    else:
        raise ConfigError("patch_dropout needs a vision transformer: leave it out for this model.")
