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
    # The tower is 32 wide: 16 of its directions reach the embedding.
    keep_shared_directions(expected, strongest=2, weakest=16 + 4)
    after = isoclip(str(base), tmp_path / "iso", strongest=2, weakest=4).load()
    assert after.fingerprint == expected.fingerprint
    assert np.linalg.matrix_rank(after.clip.visual.proj.detach().double().numpy(), tol=1e-5) == 16 - 2 - 4
    assert np.array_equal(before.encode(["a mug"], kind="text"), after.encode(["a mug"], kind="text"))
    assert not torch.allclose(before.embed_pixels(pixels_for(before)), after.embed_pixels(pixels_for(before)))


def test_all_directions_cannot_be_left_out(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fewer together than the 16 dimensions"):
        isoclip(str(base), tmp_path / "iso", strongest=8, weakest=8)
    assert not (tmp_path / "iso").exists()
