"""A matrix behind the image tower: folded into the tower's last projection, or carried beside its weights."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcip.core.errors import ModelError
from mcip.models.carried import carried, carry
from mcip.models.model import Model

# The largest difference, in any component of an embedding of unit length, that a folded matrix may make.
_TOLERANCE: Final = 1e-4


def apply_adapter(model: Model, matrix: Tensor) -> bool:
    """Make each image embedding x of a model x M, normalised, in place.

    M is folded into the weights where the image tower ends in a linear projection, so that the model stays one of
    open_clip's. Whether it did is checked on random pixels. Elsewhere the model carries M: see `carry`.

    Args:
        model: The model.
        matrix: M, float32 of shape (D, D).

    Returns:
        Whether it was folded.
    """
    visual = model.clip.visual
    earlier = carried(model.clip)
    projection = None if earlier is not None else last_projection(visual)
    if projection is not None and _fold(model, projection, matrix):
        return True
    carry(model.clip, matrix if earlier is None else earlier.cpu() @ matrix)
    return False


def refuse_carried(model: Model, form: str) -> None:
    """Stop where a model would lose the matrix that it carries.

    Raises:
        ModelError: It carries one.
    """
    if carried(model.clip) is not None:
        raise ModelError(
            f"{model.source} cannot be written as {form}: its image tower does not end in a linear projection, so the "
            "matrix that `mcip adapt` trained cannot be folded into its weights, and open_clip would compute other "
            "embeddings. Copy its folder, which `mcip.load` reads, or adapt a model that ends in a projection."
        )


def last_projection(visual: Any) -> nn.Parameter | nn.Linear | None:
    """What an image tower's pooled features are multiplied by last, if anything: (width, D), or a linear layer."""
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual.proj  # type: ignore[no-any-return]
    candidates = [getattr(getattr(visual, "attnpool", None), "c_proj", None)]
    if hasattr(visual, "trunk"):
        head = visual.head
        candidates += [getattr(head, "proj", None), getattr(getattr(head, "mlp", None), "fc2", None)]
        if len(head) == 0:
            candidates.append(visual.trunk.get_classifier())
    return next((layer for layer in candidates if isinstance(layer, nn.Linear)), None)


@torch.no_grad()
def _fold(model: Model, projection: nn.Parameter | nn.Linear, matrix: Tensor) -> bool:
    """Multiply a projection by M; what turns out not to be the last thing that is computed is put back."""
    weight = projection if isinstance(projection, nn.Parameter) else projection.weight
    bias = None if isinstance(projection, nn.Parameter) else projection.bias
    if (weight.shape[1] if isinstance(projection, nn.Parameter) else weight.shape[0]) != len(matrix):
        return False
    side = model.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = F.normalize(model.embed_pixels(pixels).cpu() @ matrix, dim=-1)
    parts = [weight] if bias is None else [weight, bias]
    exact, before = matrix.to(weight.device, torch.float64), [part.clone() for part in parts]
    if isinstance(projection, nn.Parameter):
        weight.copy_(weight.double() @ exact)
    else:
        weight.copy_(exact.T @ weight.double())
    if bias is not None:
        bias.copy_(bias.double() @ exact)
    if torch.allclose(model.embed_pixels(pixels).cpu(), expected, atol=_TOLERANCE, rtol=0):
        return True
    for part, old in zip(parts, before, strict=True):
        part.copy_(old)
    return False
