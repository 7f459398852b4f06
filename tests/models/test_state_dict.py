"""Weights put on top of a model: every key and shape checked, no code run."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
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


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)], {}, {"state_dict": {}}, {"a": 1, "b": torch.zeros(1)},
        {1: torch.zeros(2)}, {"a": torch.zeros(2).to_sparse()}, {"a": torch.zeros(2, device="meta")},
    ],
)  # fmt: skip
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
    with pytest.raises(ModelError, match="was refused: it holds more than tensors") as caught:
        models.load(tiny_folder, weights=file)
    assert "weights_only" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("ending", ["pth", "safetensors", "old.pth"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(share=0.0)
@example(share=6.103515625e-05)
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


@pytest.mark.parametrize("length", [1, 2, 3, 4, 30])
def test_the_first_bytes_of_a_checkpoint_are_called_cut_off(length: int, tiny: Model, tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(plain_state_dict(tiny.clip), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:length])
        with pytest.raises(ModelError, match="cannot be read: it is cut off, damaged"):
            read_state_dict(tmp_path / "w.pth")


def test_a_damaged_byte_is_not_called_code(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[4] = 255  # no opcode of a pickle
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read: it is cut off, damaged"):
        read_state_dict(tmp_path / "w.pth")


def test_a_zip_bomb_is_refused_by_its_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "stored.pth")
    bomb = zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored, bomb:
        for name in stored.namelist():
            bomb.writestr(name, stored.read(name))
    assert read_state_dict(tmp_path / "stored.pth")["a"].shape == (1 << 20,)

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the content was read")

    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(ModelError, match=r"refused: its entries state 4,\d+,\d+ bytes, but it has"):
        read_state_dict(tmp_path / "bomb.pth")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_larger_than_any_model_is_refused_before_it_is_read(ending: str, tmp_path: Path) -> None:
    with (tmp_path / f"w.{ending}").open("wb") as file:
        file.truncate(60_000_000_000)  # takes no room on the disk
    with pytest.raises(ModelError, match=r"was refused: it has 60,000,000,000 bytes"):
        read_state_dict(tmp_path / f"w.{ending}")


def test_a_logit_bias_without_use_is_left_out_with_a_warning(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    torch.save({**tiny.clip.state_dict(), "logit_bias": torch.tensor(-10.0)}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"w.pth holds a logit_bias, which .* has no use for: it is left out"):
        loaded = models.load(tiny_folder, weights=tmp_path / "w.pth")
    assert loaded.fingerprint == tiny.fingerprint
