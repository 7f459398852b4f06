"""Low-rank factors: nothing at the start, the product of the formula, merged without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mcip import models
from mcip.core.errors import ConfigError
from mcip.training.low_rank import add_low_rank, merge_low_rank
from tests.tiny import CONFIG, TINY_SIGLIP, pixels_for


@pytest.fixture(params=[CONFIG, TINY_SIGLIP], ids=["open_clip", "timm"])
def visual(request: pytest.FixtureRequest) -> Any:
    return models.from_config(request.param, seed=1).clip.visual


def train_a_little(visual: nn.Module, pixels: torch.Tensor) -> None:
    trained = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    for _ in range(3):
        visual(pixels)[:, 0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_merged_tower_equals_the_unmerged_one(visual: Any) -> None:
    model_pixels = pixels_for(models.from_config(CONFIG), 3)
    side = visual.image_size[0]
    pixels = nn.functional.interpolate(model_pixels, size=(side, side))
    before, names = copy.deepcopy(visual.state_dict()), list(visual.state_dict())
    with torch.no_grad():
        expected = visual(pixels)
    count = add_low_rank(visual, 2, seed=5)
    assert count >= 4 * 2
    with torch.no_grad():
        assert torch.equal(visual(pixels), expected), "up is 0 at the start"
    trained = {name for name, parameter in visual.named_parameters() if parameter.requires_grad}
    assert trained == {name for name in dict(visual.named_parameters()) if name.endswith((".0.up", ".0.down"))}
    train_a_little(visual, pixels)
    with torch.no_grad():
        unmerged = visual(pixels)
    assert not torch.allclose(unmerged, expected, atol=1e-4)
    factors = dict(visual.named_parameters())
    merge_low_rank(visual)
    assert sorted(visual.state_dict()) == sorted(names)
    with torch.no_grad():
        torch.testing.assert_close(visual(pixels), unmerged, atol=1e-5, rtol=0)
    for name, tensor in visual.state_dict().items():
        layer, _, kind = name.rpartition(".")
        place = f"{layer}.parametrizations.{kind}"
        if f"{place}.0.up" in factors:
            naive = before[name] + factors[f"{place}.0.up"] @ factors[f"{place}.0.down"]
            torch.testing.assert_close(tensor, naive.detach())
            assert torch.linalg.svdvals(tensor - before[name])[2] < 1e-5
        else:
            assert torch.equal(tensor, before[name]), name


def test_the_attention_of_open_clip_is_adapted() -> None:
    visual = models.from_config(CONFIG, seed=1).clip.visual
    add_low_rank(visual, 2, seed=0)
    names = [name for name, parameter in visual.named_parameters() if parameter.requires_grad]
    for block in range(2):
        for kind in ("attn.parametrizations.in_proj_weight", "attn.out_proj.parametrizations.weight"):
            assert f"transformer.resblocks.{block}.{kind}.0.up" in names


def test_factors_depend_on_the_seed_alone() -> None:
    def downs(seed: int) -> list[torch.Tensor]:
        layer = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8))
        torch.manual_seed(seed + 1)
        add_low_rank(layer, 2, seed)
        return [parameter for name, parameter in layer.named_parameters() if name.endswith("down")]

    assert all(torch.equal(a, b) for a, b in zip(downs(3), downs(3), strict=True))
    assert not torch.equal(downs(3)[0], downs(4)[0])


def test_frozen_layers_get_none_and_what_cannot_be_is_refused() -> None:
    layers = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8))
    layers[0].weight.requires_grad_(False)
    assert add_low_rank(layers, 2, seed=0) == 1
    with pytest.raises(ConfigError, match="lora is -1"):
        add_low_rank(layers, -1, seed=0)
    with pytest.raises(ConfigError, match="no linear layer"):
        add_low_rank(nn.Conv2d(3, 3, 3), 2, seed=0)
