"""What is changed in an image tower for training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mcip.core.errors import ConfigError


class PatchDropout(nn.Module):
    """Leaves out a share of the patches of each image in training; which ones is drawn outside of it.

    So they depend on the place of an image in its batch, and not on how many processes or parts share the batch.

    Attributes:
        kept: The places of the patches that the next batch keeps, int64 of shape (images, kept patches).

    Source: Li et al., "Scaling Language-Image Pre-training via Masking", CVPR 2023.
    """

    kept: Tensor

    def __init__(self, share: float, patches: int, prefix: int, with_places: bool) -> None:
        """Take the number of patches, of tokens before them, and whether `forward` gives the kept places too."""
        super().__init__()
        self.share, self.patches, self.prefix, self.with_places = share, patches, prefix, with_places

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Places to keep, of shape (images, kept patches), ascending."""
        count = max(1, int(self.patches * (1 - self.share)))
        scores = torch.rand(images, self.patches, generator=generator)
        return scores.topk(count, dim=1).indices.sort(dim=1).values

    def forward(self, tokens: Tensor) -> Any:
        """The tokens (images, tokens, width) that stay; in evaluation mode all of them."""
        if not self.training:
            return (tokens, None) if self.with_places else tokens
        before, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        stay = torch.cat([before, patches.gather(1, self.kept[:, :, None].expand(-1, -1, tokens.shape[2]))], dim=1)
        return (stay, self.kept) if self.with_places else stay


def drop_patches(visual: Any, share: float) -> None:
    """Let a vision transformer leave out this share of its patches in training; `patch_dropout` finds how.

    Raises:
        ConfigError: The image tower is not a vision transformer, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"patch_dropout is {share}: it is a share of the patches, from 0 to below 1.")
    trunk: Any = getattr(visual, "trunk", visual)
    if hasattr(visual, "patch_dropout"):
        visual.patch_dropout = PatchDropout(share, math.prod(visual.grid_size), 1, with_places=False)
    elif hasattr(trunk, "patch_drop") and hasattr(trunk.patch_embed, "num_patches"):
        # timm's towers with rotary positions turn those of the patches that stay.
        rotary, patches = hasattr(trunk, "rope"), trunk.patch_embed.num_patches
        trunk.patch_drop = PatchDropout(share, patches, trunk.num_prefix_tokens, with_places=rotary)
    else:
        raise ConfigError("patch_dropout needs a vision transformer: leave it out for this model.")
    visual.train(visual.training)


def patch_dropout(visual: nn.Module) -> PatchDropout | None:
    """The part of an image tower that leaves out patches, if there is one."""
    return next((part for part in visual.modules() if isinstance(part, PatchDropout)), None)
