"""Interpolation: the line between two models, and what does not lie on one."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.models import SavedModel
from mcip.stages.interpolate import interpolate
from tests.tiny import CONFIG


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A base and a model with another image tower and the same text tower."""
    folder = tmp_path_factory.mktemp("ends")
    base, tuned = (models.from_config(CONFIG, seed=seed) for seed in (1, 2))
    text = {key: value for key, value in base.clip.state_dict().items() if not key.startswith("visual.")}
    tuned.clip.load_state_dict(text, strict=False)
    return str(models.save(base, folder / "base")), str(models.save(tuned, folder / "tuned"))


@settings(max_examples=8, deadline=None)
@given(alpha=st.floats(0, 1, width=32))
def test_each_weight_lies_on_the_line(
    ends: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, alpha: float
) -> None:
    base, tuned = ends
    folder = interpolate(tuned, base, tmp_path_factory.mktemp("line") / "model", alpha=alpha)
    clip = open_clip.create_model(f"local-dir:{folder}")
    first, last = (models.load(end).clip.state_dict() for end in ends)
    for key, value in clip.state_dict().items():
        expected = (1 - alpha) * first[key].double() + alpha * last[key].double()
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
        if not key.startswith("visual."):
            assert torch.equal(value, first[key])


def test_the_ends_are_the_models(ends: tuple[str, str], tmp_path: Path) -> None:
    base, tuned = ends
    for alpha, end in ((0, base), (1, tuned)):
        folder = interpolate(tuned, base, tmp_path / "model", alpha=alpha)
        assert isinstance(folder, SavedModel)
        assert folder.load().fingerprint == models.load(end).fingerprint
    made_from = json.loads((folder / "manifest.json").read_text())["made_from"]
    assert made_from == {"interpolated": tuned, "base": base, "alpha": 1}


def test_batch_normalisation_is_interpolated_and_its_counters_kept(tmp_path: Path) -> None:
    tuned = models.load("toyshop")
    counters = [value for value in tuned.clip.state_dict().values() if not value.is_floating_point()]
    running = [value for key, value in tuned.clip.state_dict().items() if key.endswith("running_mean")]
    assert counters
    assert running
    for value in counters:
        value += 7
    for value in running:
        value += 1
    folder = interpolate(str(models.save(tuned, tmp_path / "tuned")), "toyshop", tmp_path / "model", alpha=0.25)
    first, last = models.load("toyshop").clip.state_dict(), tuned.clip.state_dict()
    for key, value in models.load(folder).clip.state_dict().items():
        if not value.is_floating_point():
            assert torch.equal(value, last[key])
        elif key.endswith("running_mean"):
            torch.testing.assert_close(value, first[key] + 0.25)
        else:
            assert torch.equal(value, first[key])


def test_loaded_models_are_interpolated_and_left_as_they_were(ends: tuple[str, str], tmp_path: Path) -> None:
    base, tuned = (models.load(end) for end in ends)
    before = base.fingerprint, tuned.fingerprint
    expected = interpolate(ends[1], ends[0], tmp_path / "by name", alpha=0.3)
    found = interpolate(tuned, base, tmp_path / "by object", alpha=0.3)
    assert found.fingerprint == expected.fingerprint
    assert (base.fingerprint, tuned.fingerprint) == before


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_share_beyond_the_ends_is_refused(ends: tuple[str, str], tmp_path: Path, alpha: float) -> None:
    with pytest.raises(ConfigError, match="between 0"):
        interpolate(ends[1], ends[0], tmp_path / "model", alpha=alpha)


def test_models_of_two_architectures_are_refused(ends: tuple[str, str], tmp_path: Path) -> None:
    wider = deepcopy(CONFIG)
    wider["model_cfg"]["vision_cfg"]["layers"] += 1
    other = str(models.save(models.from_config(wider), tmp_path / "other"))
    for tuned, base in ((ends[1], other), (other, ends[0])):
        with pytest.raises(ModelError, match="visual"):
            interpolate(tuned, base, tmp_path / "model")
    gelu = deepcopy(CONFIG)
    gelu["model_cfg"]["quick_gelu"] = not gelu["model_cfg"].get("quick_gelu", False)
    other = str(models.save(models.from_config(gelu), tmp_path / "gelu"))
    with pytest.raises(ConfigError, match="quick_gelu"):
        interpolate(ends[1], other, tmp_path / "model")
    assert not (tmp_path / "model").exists()
