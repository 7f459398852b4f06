"""Export: other people's code loads what is written, also at the size of the paper's models."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, ModelError
from mcip.models import Model, SavedModel, SavedWeights
from mcip.models.saved import write_state_dict
from mcip.models.state_dict import SkipInit
from mcip.stages.export import export


@pytest.fixture
def source(tiny_config: dict[str, Any], tmp_path: Path) -> str:
    return str(models.save(models.from_config(tiny_config, seed=2), tmp_path / "source"))


def test_pth_is_a_plain_state_dict_that_loads_strictly(source: str, tmp_path: Path) -> None:
    path = export(source, tmp_path / "out" / "model.pth")
    assert isinstance(path, SavedWeights)
    assert os.fspath(path) == str(path) == str(tmp_path / "out" / "model.pth")
    clip = open_clip.create_model(f"local-dir:{source}", load_weights=False)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    clip.load_state_dict(state, strict=True)
    model = models.load(source)
    with torch.no_grad():
        pixels = torch.randn(2, 3, model.image_size, model.image_size)
        assert torch.equal(clip.eval().encode_image(pixels), model.clip.encode_image(pixels))
    config = json.loads((tmp_path / "out" / "model.pth.json").read_text())
    assert path.config == config
    assert path.load().fingerprint == model.fingerprint
    assert path.load().preprocess_cfg == model.preprocess_cfg
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["preprocess_cfg"]["resize_mode"] == "squash"


def test_open_clip_format_is_a_folder_it_loads(source: str, tmp_path: Path) -> None:
    folder = export(source, tmp_path / "folder", format="open_clip")
    assert isinstance(folder, SavedModel)
    assert folder.load().fingerprint == models.load(source).fingerprint
    clip = open_clip.create_model(f"local-dir:{folder}")
    clip.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=True)
    assert models.load(folder).fingerprint == models.load(source).fingerprint


def test_an_exported_file_goes_back_on_top(tiny_config: dict[str, Any], source: str, tmp_path: Path) -> None:
    path = export(source, tmp_path / "model.pth")
    other = models.save(models.from_config(tiny_config, seed=5), tmp_path / "other")
    assert models.load(other, weights=Path(path)).fingerprint == models.load(source).fingerprint
    folder = export(str(other), tmp_path / "folder", format="open_clip", weights=Path(path))
    assert models.load(folder).fingerprint == models.load(source).fingerprint
    made_from = json.loads((Path(folder) / "manifest.json").read_text())["made_from"]
    assert made_from == {"exported_from": str(other), "weights": str(path)}


def test_what_is_in_the_way_is_kept(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"is a folder; format pth writes a file"):
        export(source, tmp_path)
    path = export(source, tmp_path / "model.pth")
    before = Path(path).read_bytes()

    def full(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at inline_container.cc] . PytorchStreamWriter failed: No space left on device"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ArtefactError, match="disk is full"):
        export(source, Path(path))
    assert Path(path).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pth", "model.pth.json", "source"]


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "m.ONNX", "m.pt2", "model.v2"])
def test_a_file_named_as_another_kind_is_refused_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is named as a \.\w+ file, but format pth writes .*: name it \w+\.pth"):
        export("no such model", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.pth", "m.onnx", "m.safetensors"])
def test_a_folder_named_as_a_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format open_clip writes a folder: name it m"):
        export("no such model", tmp_path / name, format="open_clip")


@pytest.mark.parametrize("name", ["m.pth", "m.PT", "m.bin", "m"])
def test_names_of_state_dicts_are_taken(name: str, source: str, tmp_path: Path) -> None:
    assert (
        torch.load(export(source, tmp_path / name), weights_only=True).keys()
        == models.load(source).clip.state_dict().keys()
    )


def test_a_folder_may_have_a_version_in_its_name(source: str, tmp_path: Path) -> None:
    saved = export(source, tmp_path / "model-1.5", format="open_clip")
    assert isinstance(saved, SavedModel)
    assert saved.load().fingerprint == models.load(source).fingerprint


def test_a_loaded_model_is_exported(tiny: Model, tmp_path: Path) -> None:
    before = tiny.fingerprint
    saved = export(tiny, tmp_path / "tiny.pth")
    assert isinstance(saved, SavedWeights)
    assert saved.load().fingerprint == before
    other = export("toyshop", tmp_path / "toyshop.pth")
    with pytest.raises(ModelError, match="do not fit"):
        export(tiny, tmp_path / "wrong.pth", weights=Path(other))
    assert tiny.fingerprint == before


def samples(clip: nn.Module) -> dict[str, Tensor]:
    """Some 64 values spread over each tensor, as views."""
    return {key: v.view(-1)[:: max(1, v.numel() // 64)] for key, v in clip.state_dict().items()}


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder for a file of gigabytes: in memory where there is room, because a disk takes minutes to write it."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 4e9:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


# The larger one is stored in half precision, which must load as float32 too.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("ViT-L-14-336/openai", torch.float32), ("ViT-SO400M-14-SigLIP-384/webli", torch.float16)],
)
def test_the_papers_models_round_trip(
    name: str, dtype: torch.dtype, roomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # gigabytes need not reach the disk here
    with SkipInit():
        model = models.create(name)
    model.clip.to(dtype)
    for view in samples(model.clip).values():
        torch.nn.init.normal_(view)
    expected = {key: (view.clone(), model.clip.state_dict()[key].shape) for key, view in samples(model.clip).items()}
    model_cfg = model.model_cfg
    path = write_state_dict(model, roomy / "MCIP.pth")
    del model

    def check(clip: nn.Module) -> None:
        found = samples(clip)
        assert found.keys() == expected.keys()
        for key, tensor in clip.state_dict().items():
            assert tensor.shape == expected[key][1]
            assert torch.equal(found[key], expected[key][0].float())

    architecture = name.partition("/")[0]
    with SkipInit():
        clip = open_clip.create_model(architecture, force_quick_gelu=bool(model_cfg.get("quick_gelu")))
    clip.load_state_dict(torch.load(path, weights_only=True), strict=True)
    check(clip)
    del clip

    again = models.load(name, weights=path)
    check(again.clip)
    assert again.model_cfg == model_cfg
    assert bool(again.model_cfg.get("quick_gelu")) == ("openai" in name)
    assert {type(m).__name__ for m in again.clip.modules() if type(m).__name__ == "QuickGELU"} == (
        {"QuickGELU"} if "openai" in name else set()
    )
    assert again.image_size == int(architecture[-3:])
    path.unlink()  # pytest keeps tmp_path
