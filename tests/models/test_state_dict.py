"""Weights put on top of a model: every key and shape checked, no code run."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mcip import models
from mcip.core.errors import ModelError
from mcip.models import Model
from mcip.models.state_dict import plain_state_dict, read_state_dict
from tests.tiny import Mischief


@pytest.mark.parametrize("form", ["plain", "wrapped", "parallel", "safetensors", "old", "one-element scale"])
def test_weights_are_put_on_top(tiny_config: dict[str, Any], form: str, tiny_folder: Path, tmp_path: Path) -> None:
    other = models.from_config(tiny_config, seed=77)
    state = plain_state_dict(other.clip)
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, file)
    elif form == "old":
        torch.save(state, file, _use_new_zipfile_serialization=False)
    elif form == "one-element scale":
        torch.save({**state, "logit_scale": state["logit_scale"][None]}, file)
    elif form == "plain":
        torch.save(state, file)
    else:
        state = {f"module.{key}": value for key, value in state.items()} if form == "parallel" else state
        torch.save({"state_dict": state, "epoch": 3}, file)
    assert models.load(tiny_folder, weights=file).fingerprint == other.fingerprint


def test_weights_that_do_not_fit_are_refused_with_the_keys(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "w.pth"
    config = copy.deepcopy(tiny_config)
    config["model_cfg"]["embed_dim"] = 12
    torch.save(models.from_config(config).clip.state_dict(), file)
    with pytest.raises(ModelError) as caught:
        models.load(tiny_folder, weights=file)
    assert "visual.proj is (16, 12) in the file and (16, 8) in the model" in str(caught.value)
    assert str(file) in str(caught.value)

    state = plain_state_dict(tiny.clip)
    del state["logit_scale"]
    torch.save({**state, "head.weight": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"missing: logit_scale\. .*not in the model: head\.weight"):
        models.load(tiny_folder, weights=file)
    torch.save({f"backbone.{key}": value for key, value in state.items()}, file)
    with pytest.raises(ModelError, match=r"missing: .* and \d+ more"):
        models.load(tiny_folder, weights=file)
    with pytest.raises(ModelError, match="no weights file"):
        models.load(tiny_folder, weights=tmp_path / "none.pth")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {}, {"state_dict": {}}, {"a": 1, "b": torch.zeros(1)}])
def test_files_that_are_no_state_dict_are_refused(content: object, tiny_folder: Path, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"state dict"):
        models.load(tiny_folder, weights=tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(form: str, tiny_folder: Path, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "w.pth"
    content = {"logit_scale": Mischief(mark)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match="was refused: it holds more than tensors"):
        models.load(tiny_folder, weights=file)
    assert not mark.exists()


@pytest.mark.parametrize("ending", ["pth", "safetensors", "old.pth"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_cut_off_checkpoint_is_refused(ending: str, share: float, tiny: Model, tmp_path: Path) -> None:
    file = tmp_path / f"w.{ending}"
    state = {key: value for key, value in plain_state_dict(tiny.clip).items() if key.startswith("visual")}
    if ending == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=ending == "pth")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="cannot be read: it is cut off, damaged"):
        read_state_dict(file)
