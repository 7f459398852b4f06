"""Freezing by name, layer-wise decay of the learning rate from the formula, and rates and lengths that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from mcip import models
from mcip.core.errors import ConfigError
from mcip.stages.training import count_steps
from mcip.training import EpochOrder
from mcip.training.objective import Group
from mcip.training.optimizer import freeze_parameters, freeze_statistics, layer_factors, make_optimizer
from tests.tiny import CONFIG, TINY_SIGLIP

RESNET: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"layers": [1, 2, 1, 1], "width": 8, "patch_size": None, "image_size": 32},
        "text_cfg": CONFIG["model_cfg"]["text_cfg"],
    },
    "preprocess_cfg": CONFIG["preprocess_cfg"],
}


def tower(config: dict[str, Any]) -> Any:
    return models.from_config(config, seed=1).clip.visual


# How many layers are above the parameter's: blocks, and what follows them.
@pytest.mark.parametrize(
    ("config", "above"),
    [
        (
            CONFIG,
            {
                "conv1.weight": 3, "class_embedding": 3, "positional_embedding": 3, "ln_pre.bias": 3,
                "transformer.resblocks.0.attn.in_proj_weight": 2, "transformer.resblocks.1.mlp.c_fc.bias": 1,
                "ln_post.weight": 0, "proj": 0,
            },
        ),
        (
            TINY_SIGLIP,
            {
                "trunk.patch_embed.proj.weight": 7, "trunk.pos_embed": 7, "trunk.blocks.0.attn.qkv.weight": 6,
                "trunk.blocks.5.mlp.fc2.bias": 1, "trunk.fc_norm.weight": 0,
            },
        ),
        (
            RESNET,
            {
                "conv1.weight": 6, "bn3.bias": 6, "layer1.0.conv1.weight": 5, "layer2.0.bn1.weight": 4,
                "layer2.1.conv3.weight": 3, "layer3.0.downsample.0.weight": 2, "layer4.0.conv1.weight": 1,
                "attnpool.c_proj.weight": 0,
            },
        ),
    ],
    ids=["open_clip", "timm", "resnet"],
)  # fmt: skip
def test_each_layer_learns_slower_than_the_one_above(config: dict[str, Any], above: dict[str, int]) -> None:
    visual = tower(config)
    factors = layer_factors(visual, 0.75)
    assert factors.keys() == dict(visual.named_parameters()).keys()
    for name, layers in above.items():
        assert factors[name] == pytest.approx(0.75**layers), name
    assert sorted(set(factors.values())) == pytest.approx(sorted(0.75**n for n in range(max(above.values()) + 1)))


def test_a_tower_with_many_blocks_counts_them_as_numbers() -> None:
    blocks = nn.ModuleList([nn.Linear(1, 1) for _ in range(12)])
    visual = nn.ModuleDict({"transformer": nn.ModuleDict({"resblocks": blocks}), "proj": nn.Linear(1, 1)})
    factors = layer_factors(visual, 0.5)
    assert factors["transformer.resblocks.10.weight"] == 0.5**2
    assert factors["transformer.resblocks.2.weight"] == 0.5**10


def test_what_has_no_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="layers of this image tower are not known"):
        layer_factors(nn.Linear(1, 1), 0.5)
    for decay in (0.0, 1.5):
        with pytest.raises(ConfigError, match="layer_decay is"):
            layer_factors(tower(CONFIG), decay)


def test_frozen_parameters_are_those_that_match() -> None:
    visual = tower(CONFIG)
    kept = freeze_parameters(visual, r"conv1|resblocks\.0\.")
    frozen = [name for name, parameter in visual.named_parameters() if not parameter.requires_grad]
    assert kept == frozen
    assert frozen == [
        name for name, _ in visual.named_parameters() if name.startswith(("conv1", "transformer.resblocks.0."))
    ]


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    visual = tower(RESNET)
    freeze_parameters(visual, r"^bn1\.")
    visual.train()
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items() if "running_mean" in name}
    visual(torch.randn(2, 3, 32, 32))
    after = visual.state_dict()
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert not torch.equal(before["bn2.running_mean"], after["bn2.running_mean"])


def test_frozen_statistics_stay_and_weights_are_trained() -> None:
    visual = tower(RESNET).eval()
    images = torch.randn(4, 3, 32, 32)
    expected = visual(images)
    freeze_statistics(visual)
    visual.train()
    before = {name: tensor.clone() for name, tensor in visual.named_buffers()}
    # No image has a part in the embedding of another one.
    torch.testing.assert_close(visual(images), expected)
    visual(images).square().sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in visual.named_buffers())
    assert all(parameter.grad is not None for name, parameter in visual.named_parameters() if name.startswith("bn"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is no regular expression"), ("nothing", "matches no parameter"), (".", "matches every parameter")],
)
def test_patterns_that_make_no_sense(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze_parameters(tower(CONFIG), pattern)


def test_the_optimizer_is_one_kernel_on_any_device() -> None:
    group = Group("weights", [nn.Parameter(torch.ones(3))], lr=0.1, weight_decay=0.0)
    assert make_optimizer([group], (0.9, 0.999), 1e-8).defaults["fused"] is True


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_rates_that_make_no_sense(wrong: float) -> None:
    weights = [nn.Parameter(torch.ones(3))]
    with pytest.raises(ConfigError, match=f"The learning rate of the centers is {wrong}"):
        make_optimizer([Group("centers", weights, lr=wrong, weight_decay=0.0)], (0.9, 0.999), 1e-8)
    with pytest.raises(ConfigError, match=f"The weight decay of the centers is {wrong}"):
        make_optimizer([Group("centers", weights, lr=0.1, weight_decay=wrong)], (0.9, 0.999), 1e-8)


@pytest.mark.parametrize("epochs", [0.0, -1.0, math.nan, math.inf])
def test_epochs_that_make_no_sense(epochs: float) -> None:
    order = EpochOrder(10, 2, 0)
    with pytest.raises(ConfigError, match=f"epochs is {epochs}: it is a number of passes"):
        count_steps(None, epochs, order)
    assert count_steps(3, epochs, order) == 3
    assert count_steps(None, 0.01, order) == 1
