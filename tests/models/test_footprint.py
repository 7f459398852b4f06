"""What a tower costs: counted on tensors without content, equal to what a real forward pass keeps."""

from __future__ import annotations

import pytest
import torch

from mcip import models
from mcip.models.footprint import image_footprint
from tests.tiny import CONFIG, TINY_SIGLIP


def kept_by_a_real_pass(model: models.Model, batch_size: int) -> int:
    visual = model.clip.visual.train()
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*visual.parameters(), *visual.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        visual(torch.zeros(batch_size, 3, model.image_size, model.image_size))
    visual.eval()
    return sum(kept.values())


@pytest.mark.parametrize("config", [CONFIG, TINY_SIGLIP], ids=["clip", "siglip"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_bytes_are_those_that_a_real_pass_keeps(config: dict[str, object], batch_size: int) -> None:
    model = models.from_config(config)
    fingerprint = model.fingerprint
    found = image_footprint(model, batch_size, "fp32")
    assert found.activation_bytes == pytest.approx(kept_by_a_real_pass(model, batch_size), rel=0.02)
    assert found.parameters == sum(parameter.numel() for parameter in model.image_parameters())
    assert model.fingerprint == fingerprint
    assert not model.clip.visual.training


def test_flops_in_closed_form() -> None:
    """Two blocks of width 32 over 17 tokens, patches of 8 pixels, a projection to 16 dimensions."""
    tokens, width = 17, 32
    block = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width) + 4 * tokens * tokens * width
    expected = 2 * 16 * width * 3 * 8 * 8 + 2 * block + 2 * width * 16
    assert image_footprint(models.from_config(CONFIG), 3, "fp32").forward_flops == pytest.approx(expected, rel=1e-6)


def test_checkpointing_keeps_less() -> None:
    model = models.from_config(CONFIG)
    assert image_footprint(model, 8, grad_checkpointing=True).activation_bytes < (
        image_footprint(model, 8).activation_bytes / 2
    )
