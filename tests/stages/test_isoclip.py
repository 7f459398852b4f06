"""`mcip isoclip` writes the model that the function makes, and leaves the text tower alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mcip import models
from mcip.core.errors import ConfigError
from mcip.models.isoclip import keep_shared_directions
from mcip.stages.isoclip import isoclip
from tests.tiny import pixels_for


def test_the_projection_loses_the_directions(base: Path, tmp_path: Path) -> None:
    before = models.load(base)
    expected = models.load(base)
    keep_shared_directions(expected, strongest=2, weakest=20)
    after = isoclip(str(base), tmp_path / "iso", strongest=2, weakest=20).load()
    assert after.fingerprint == expected.fingerprint
    # Of the 32 directions of the tower's width 16 reach the embedding.
    assert np.linalg.matrix_rank(after.clip.visual.proj.detach().double().numpy(), tol=1e-5) == 32 - 2 - 20
    assert np.array_equal(before.encode(["a mug"], kind="text"), after.encode(["a mug"], kind="text"))
    assert not torch.allclose(before.embed_pixels(pixels_for(before)), after.embed_pixels(pixels_for(before)))


def test_all_directions_cannot_be_left_out(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be left out of 32"):
        isoclip(str(base), tmp_path / "iso", strongest=16, weakest=16)
    assert not (tmp_path / "iso").exists()
