"""Patch dropout: which patches stay, and that towers of open_clip and timm take it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mcip import models
from mcip.core.errors import ConfigError
from mcip.models.image_tower import PatchDropout, drop_patches, patch_dropout
from tests.tiny import CONFIG, TINY_SIGLIP


def test_tokens_that_stay() -> None:
    part = PatchDropout(0.6, 10, 2, with_places=False)
    part.kept = part.draw(3, torch.Generator().manual_seed(1))
    assert part.kept.shape == (3, 4)
    tokens = torch.arange(3 * 12.0).reshape(3, 12, 1).expand(3, 12, 5)
    expected = [[tokens[row, place] for place in [0, 1, *(2 + part.kept[row]).tolist()]] for row in range(3)]
    assert torch.equal(part(tokens), torch.stack([torch.stack(row) for row in expected]))
    assert part.eval()(tokens) is tokens


def test_what_stays_of_an_image_follows_from_its_place() -> None:
    part = PatchDropout(0.5, 16, 1, with_places=False)
    few, many = (part.draw(count, torch.Generator().manual_seed(3)) for count in (4, 9))
    assert torch.equal(few, many[:4])
    assert all(len(set(row.tolist())) == 8 for row in many)
    counts = part.draw(4000, torch.Generator().manual_seed(4)).flatten().bincount(minlength=16)
    assert counts.min() > 1800
    assert counts.max() < 2200


@pytest.mark.parametrize("name", ["open_clip", "timm", "rotary"])
def test_towers_run_with_fewer_patches(name: str) -> None:
    torch.manual_seed(0)
    tower: nn.Module
    if name == "rotary":
        tower = timm.create_model("eva02_tiny_patch14_224", img_size=56, depth=2, num_classes=0)
    else:
        tower = models.from_config(CONFIG if name == "open_clip" else TINY_SIGLIP).clip.visual
    side = 56 if name == "rotary" else 32 if name == "open_clip" else 160
    pixels = torch.randn(2, 3, side, side)
    whole = tower.eval()(pixels)
    drop_patches(tower, 0.5)
    part = patch_dropout(tower)
    assert part is not None
    torch.testing.assert_close(tower(pixels), whole)
    tower.train()
    part.kept = torch.arange(part.patches).expand(2, -1)
    torch.testing.assert_close(tower(pixels), whole, atol=1e-5, rtol=1e-4)
    part.kept = part.draw(2, torch.Generator().manual_seed(1))
    found = tower(pixels)
    assert found.shape == whole.shape
    assert not torch.allclose(found, whole)


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0])
def test_shares_that_make_no_sense(share: float) -> None:
    with pytest.raises(ConfigError, match="patch_dropout is"):
        drop_patches(nn.Linear(1, 1), share)
