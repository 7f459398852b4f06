"""Models: folders that open_clip loads too, saving, and the model itself."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mcip import models
from mcip.models import Model
from mcip.models.state_dict import SkipInit, plain_state_dict
from tests.tiny import TINY_SIGLIP, pixels_for


@pytest.mark.filterwarnings("ignore:.*tokenizer")
def test_open_clip_loads_a_saved_folder_by_itself(config: dict[str, Any], tmp_path: Path) -> None:
    model = models.from_config(config, seed=1)
    folder = models.save(model, tmp_path / "model")
    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    clip.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=True)
    clip.eval()
    pixels = pixels_for(model)
    tokens = torch.randint(1, 90, (2, config["model_cfg"]["text_cfg"]["context_length"]))
    with torch.no_grad():
        assert torch.equal(clip.encode_image(pixels), model.clip.encode_image(pixels))
        assert torch.equal(clip.encode_text(tokens), model.clip.encode_text(tokens))
        expected = torch.nn.functional.normalize(clip.encode_image(pixels), dim=-1)
    assert torch.equal(model.embed_pixels(pixels), expected)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8))
    assert torch.equal(model.transform()(image), preprocess(image))


@pytest.mark.filterwarnings("ignore:.*tokenizer")
def test_save_then_load_gives_the_same_model(config: dict[str, Any], tmp_path: Path) -> None:
    model = models.from_config(config, seed=1)
    folder = models.save(model, tmp_path / "deep" / "model")
    for name in (folder, str(folder), f"local-dir:{folder}"):
        again = models.load(name)
        assert again.fingerprint == model.fingerprint
        assert (again.model_cfg, again.preprocess_cfg) == (model.model_cfg, model.preprocess_cfg)
        assert not again.clip.training
        assert {p.dtype for p in again.clip.parameters()} == {torch.float32}


def test_the_folder_says_how_it_was_made(tiny_folder: Path, tiny: Model) -> None:
    manifest = json.loads((tiny_folder / "manifest.json").read_text())
    assert manifest["kind"] == "model"
    assert manifest["made_from"] == {"method": "test"}
    assert manifest["fingerprint"] == tiny.fingerprint
    assert manifest["complete"]


def test_weights_stored_in_half_precision_load_as_float32(tiny: Model, tiny_folder: Path) -> None:
    state = {key: value.half() for key, value in plain_state_dict(tiny.clip).items()}
    save_file(state, tiny_folder / "open_clip_model.safetensors")
    (tiny_folder / "manifest.json").unlink()
    again = models.load(tiny_folder)
    for key, value in again.clip.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float())


def test_channels_last_weights_and_weights_that_share_memory_are_saved(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    model = models.from_config(tiny_config, seed=1)
    model.clip.to(memory_format=torch.channels_last)
    state = model.clip.get_submodule("visual.ln_pre")
    state.bias = model.clip.get_submodule("visual.ln_post").bias
    assert models.load(models.save(model, tmp_path / "model")).fingerprint == model.fingerprint


def test_properties_and_unit_length(tiny: Model) -> None:
    assert (tiny.embed_dim, tiny.image_size, tiny.device.type) == (8, 16, "cpu")
    images, texts = tiny.embed_pixels(pixels_for(tiny)), tiny.encode(["a cat", "two dogs"], convert_to_tensor=True)
    assert images.shape == (3, 8)
    assert texts.shape == (2, 8)
    for found in (images, texts):
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert not found.is_inference()
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_text_batches_do_not_change_the_result(tiny: Model) -> None:
    texts = [f"picture number {i}" for i in range(7)]
    expected = np.stack([tiny.encode(text) for text in texts])
    np.testing.assert_allclose(tiny.encode(texts, batch_size=3), expected, atol=1e-6)
    assert tiny.encode([]).shape == (0, 8)


def test_towers_may_be_on_different_devices(config: dict[str, Any]) -> None:
    model = models.from_config(config)
    model.clip.get_submodule("visual").to("meta")
    assert model.device.type == "meta"
    tokens = config["model_cfg"]["text_cfg"]["context_length"]
    model._tokenizer = lambda texts: torch.ones(len(texts), tokens, dtype=torch.int64)
    assert model.encode(["a cat"], convert_to_tensor=True).device.type == "cpu"
    assert model.embed_pixels(pixels_for(model)).device.type == "meta"


def test_every_parameter_is_in_one_tower_or_is_the_logit_scale(tiny_config: dict[str, Any]) -> None:
    for config in (tiny_config, TINY_SIGLIP):
        model = models.from_config(config)
        scales = [p for name, p in model.clip.named_parameters() if name.startswith("logit_")]
        found = [id(p) for p in (*model.image_parameters(), *model.text_parameters(), *scales)]
        assert sorted(found) == sorted(id(p) for p in model.clip.parameters())


def test_fingerprint_follows_the_weights_and_the_activation(tiny_config: dict[str, Any]) -> None:
    model, same, other = (
        models.from_config(tiny_config),
        models.from_config(tiny_config),
        models.from_config(tiny_config, seed=1),
    )
    assert model.fingerprint == same.fingerprint != other.fingerprint
    before = model.fingerprint
    with torch.no_grad():
        next(model.clip.parameters()).add_(1)
    assert model.fingerprint != before
    gelu = copy.deepcopy(tiny_config)
    gelu["model_cfg"]["quick_gelu"] = False
    assert models.from_config(gelu).fingerprint != before


def test_fingerprint_is_hashed_once_until_a_weight_is_changed_or_replaced(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def counted(start: bytes) -> Any:
        hashed.append(start)
        return sha256(start)

    monkeypatch.setattr(hashlib, "sha256", counted)
    model = models.from_config(tiny_config)
    before = model.fingerprint
    model.encode(["a cat", "a very long text of many words"])
    model.embed_pixels(pixels_for(model))
    assert model.fingerprint == before
    assert len(hashed) == 1
    weight = model.clip.positional_embedding
    with torch.no_grad():
        weight[0, 0] += 1
    changed = model.fingerprint
    with torch.no_grad():
        weight[0, 0] -= 1
    assert changed != before
    assert model.fingerprint not in (changed, "")
    model.clip.positional_embedding = torch.nn.Parameter(torch.zeros_like(weight))
    replaced = model.fingerprint
    weight = model.clip.positional_embedding
    weight.data = torch.ones_like(weight)
    assert len({before, changed, replaced, model.fingerprint}) == 4
    model.clip.load_state_dict(models.from_config(tiny_config).clip.state_dict())
    assert model.fingerprint == before


def test_a_rounded_model_has_another_fingerprint_though_memory_is_used_again(tiny: Model) -> None:
    found = set()
    for _ in range(5):
        model = tiny.copy()
        before = model.fingerprint
        model.clip.half().float()
        found.add(model.fingerprint)
        assert before == tiny.fingerprint != model.fingerprint
    assert len(found) == 1


def test_a_copy_and_a_pickled_model_are_the_same_model_with_memory_of_their_own(tiny: Model) -> None:
    before = tiny.fingerprint
    for other in (tiny.copy(), pickle.loads(pickle.dumps(tiny))):  # noqa: S301 - made here
        assert other.fingerprint == before
        with torch.no_grad():
            other.clip.logit_scale += 1
        assert other.fingerprint != before
    assert tiny.fingerprint == before


def test_a_model_loaded_in_inference_mode_can_be_changed_and_is_watched(tiny_folder: Path) -> None:
    with torch.inference_mode():
        model = models.load(tiny_folder)
    before = model.fingerprint
    with torch.no_grad():
        model.clip.logit_scale += 1
    assert model.fingerprint != before


def test_a_loaded_model_is_given_back_and_weights_on_top_leave_it_as_it_was(
    tiny_config: dict[str, Any], tiny: Model, tmp_path: Path
) -> None:
    assert models.load(tiny) is tiny
    other = models.from_config(tiny_config, seed=9)
    torch.save(other.clip.state_dict(), tmp_path / "other.pth")
    before = tiny.fingerprint
    assert models.load(tiny, weights=tmp_path / "other.pth").fingerprint == other.fingerprint
    assert tiny.fingerprint == before


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone(tiny_config: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models.from_config(tiny_config, seed=8)
    assert torch.equal(torch.rand(3), expected)


def test_open_clip_does_not_log_and_the_root_logger_is_left_alone(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    models.load(tiny_folder)
    assert logging.getLogger().handlers == []
    assert logging.getLogger().filters == []
    assert capfd.readouterr() == ("", "")


def test_skipping_initialisation_draws_nothing() -> None:
    with SkipInit():
        layer = torch.nn.Linear(3, 2)
        zero = torch.zeros(4)
        torch.nn.init.normal_(zero)
        torch.nn.init.uniform_(tensor=zero)
        zero.normal_()
        filled = torch.full((4,), 2.0).fill_(3.0)
    assert torch.equal(zero, torch.zeros(4))
    assert layer.weight.shape == (2, 3)
    assert torch.equal(filled, torch.full((4,), 3.0))
    assert not torch.equal(torch.nn.init.normal_(zero), torch.zeros(4))
