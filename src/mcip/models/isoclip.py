"""IsoCLIP: better image-to-image retrieval without training, by what the two last projections share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mcip.core.errors import ConfigError, ModelError
from mcip.models.adapter import last_projection
from mcip.models.model import Model


@torch.no_grad()
def keep_shared_directions(model: Model, strongest: int, weakest: int) -> None:
    """Leave out of the image projection the directions in which images and texts are least alike, in place.

    With W the image projection (D, width) and T that of the text, W becomes W U U^T, where the columns of U are the
    left singular vectors of W^T T without the `strongest` first and the `weakest` last. The text tower stays as it is.
    A bias is one more column of a projection, as of a feature that is always 1.

    Args:
        model: Its towers end in linear projections.
        strongest: How many of the strongest directions are left out.
        weakest: How many of the weakest.

    Raises:
        ModelError: A tower does not end in a linear projection.
        ConfigError: A number is below 0, or no direction would be left.

    Source: Magistri et al., "IsoCLIP: Decomposing CLIP Projectors for Efficient Intra-modal Alignment", CVPR 2026.

    Example:
        >>> model = mcip.load("ViT-B-16/openai")  # doctest: +SKIP
        >>> keep_shared_directions(model, strongest=50, weakest=50)  # doctest: +SKIP
    """
    image, text = last_projection(model.clip.visual), _text_projection(model.clip)
    if image is None or text is None:
        raise ModelError(
            f"IsoCLIP needs towers that end in a linear projection; the {'image' if image is None else 'text'} tower "
            f"of {model.source} does not."
        )
    weights = _matrix(image)
    left, values, _ = torch.linalg.svd(weights.T @ _matrix(text), full_matrices=False)
    if strongest < 0 or weakest < 0 or strongest + weakest >= len(values):
        raise ConfigError(
            f"IsoCLIP: {strongest} strongest and {weakest} weakest directions cannot be left out of {len(values)}."
        )
    kept = left[:, strongest : len(values) - weakest]
    changed = weights @ kept @ kept.T
    if isinstance(image, nn.Parameter):
        image.copy_(changed.T)
        return
    width = image.weight.shape[1]
    image.weight.copy_(changed[:, :width])
    if image.bias is not None:
        image.bias.copy_(changed[:, width])


def unused_directions(model: Model) -> int:
    """How many of the weakest directions reach no embedding: where both towers are wider than their embeddings."""
    image, text = last_projection(model.clip.visual), _text_projection(model.clip)
    if image is None or text is None:
        return 0
    return max(0, min(_matrix(image).shape[1], _matrix(text).shape[1]) - model.embed_dim)


def _text_projection(clip: Any) -> nn.Parameter | nn.Linear | None:
    projection = getattr(getattr(clip, "text", clip), "text_projection", None)
    return projection if isinstance(projection, nn.Parameter | nn.Linear) else None


def _matrix(projection: nn.Parameter | nn.Linear) -> Tensor:
    """A projection as a float64 matrix (D, width), its bias, if it has one, as one more column."""
    if isinstance(projection, nn.Parameter):
        return projection.double().T
    columns = [projection.weight] if projection.bias is None else [projection.weight, projection.bias[:, None]]
    return torch.cat(columns, dim=1).double()
