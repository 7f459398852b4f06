"""Models: names, folders, weights put on top, saving, and what a user meets when one of them is wrong."""

from __future__ import annotations

import copy
import errno
import json
import logging
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mcip import models, names, tokenizers
from mcip.errors import ArtefactError, ModelError
from mcip.models import Model
from mcip.names import resolve
from mcip.weights import SkipInit, plain_state_dict, read_state_dict

# As SigLIP's: a timm image tower without a projector, a custom text tower, a logit bias, a tokenizer of the hub.
TINY_SIGLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "none",
            "image_size": 160,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 100,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 64,
            "heads": 2,
            "layers": 1,
            "pool_type": "last",
            "proj_bias": True,
            "no_causal_mask": True,
        },
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
}
TOYSHOP_BASE = Path(models.__file__).parent / "toyshop" / "base"


def pixels_for(model: Model, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, model.image_size, model.image_size, generator=generator)


@pytest.fixture(params=["clip", "siglip"])
def config(request: pytest.FixtureRequest, tiny_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_config if request.param == "clip" else TINY_SIGLIP


@pytest.fixture
def tiny(tiny_config: dict[str, Any]) -> Model:
    return models.from_config(tiny_config, seed=3)


@pytest.fixture
def tiny_folder(tiny: Model, tmp_path: Path) -> Path:
    return models.save(tiny, tmp_path / "tiny", made_by={"method": "test"})


# ---- round trips -----------------------------------------------------------------------------------------------------


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
    assert torch.equal(model.encode_images(pixels), expected)
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


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path
) -> None:
    other = models.from_config(tiny_config, seed=4)
    models.save(other, tiny_folder)
    assert models.load(tiny_folder).fingerprint == other.fingerprint != tiny.fingerprint
    assert list(tiny_folder.parent.iterdir()) == [tiny_folder]


def test_a_folder_with_other_things_is_not_replaced(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path)
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path / "notes.txt")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_a_full_disk_leaves_the_old_model_whole(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(models, "save_file", full)
    with pytest.raises(ArtefactError, match="disk is full"):
        models.save(models.from_config(tiny_config, seed=9), tiny_folder)
    assert models.load(tiny_folder).fingerprint == tiny.fingerprint
    assert list(tiny_folder.parent.iterdir()) == [tiny_folder]


# ---- the model itself ------------------------------------------------------------------------------------------------


def test_properties_and_unit_length(tiny: Model) -> None:
    assert (tiny.embed_dim, tiny.image_size, tiny.device.type) == (8, 16, "cpu")
    images, texts = tiny.encode_images(pixels_for(tiny)), tiny.encode_texts(["a cat", "two dogs"])
    assert images.shape == (3, 8)
    assert texts.shape == (2, 8)
    for found in (images, texts):
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert not found.is_inference()
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_text_batches_do_not_change_the_result(tiny: Model) -> None:
    texts = [f"picture number {i}" for i in range(7)]
    expected = torch.cat([tiny.encode_texts([text]) for text in texts])
    torch.testing.assert_close(tiny.encode_texts(texts, batch_size=3), expected)
    assert tiny.encode_texts([]).shape == (0, 8)
    with pytest.raises(ModelError, match="put it in a list"):
        tiny.encode_texts("a cat")


def test_towers_may_be_on_different_devices(config: dict[str, Any]) -> None:
    model = models.from_config(config)
    model.clip.get_submodule("visual").to("meta")
    assert model.device.type == "meta"
    tokens = config["model_cfg"]["text_cfg"]["context_length"]
    model._tokenizer = lambda texts: torch.ones(len(texts), tokens, dtype=torch.int64)
    assert model.encode_texts(["a cat"]).device.type == "cpu"
    assert model.encode_images(pixels_for(model)).device.type == "meta"


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


# ---- names -----------------------------------------------------------------------------------------------------------


def test_the_activation_is_that_of_the_tag() -> None:
    for name, tag in open_clip.list_pretrained():
        own = bool(open_clip.get_model_config(name).get("quick_gelu", False))
        expected = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", own)
        assert bool(resolve(f"{name}/{tag}").model_cfg.get("quick_gelu")) == expected, (name, tag)


def test_the_paper_models_are_resolved_as_the_paper_uses_them() -> None:
    openai = resolve("mcip/ViT-L-14-336")
    assert openai.model_cfg["quick_gelu"] is True
    assert openai.preprocess_cfg["resize_mode"] == "shortest"
    siglip = resolve("mcip/ViT-SO400M-14-SigLIP-384")
    assert not siglip.model_cfg.get("quick_gelu")
    assert siglip.preprocess_cfg["resize_mode"] == "squash"
    assert siglip.model_cfg["text_cfg"]["tokenizer_kwargs"] == {"clean": "canonicalize"}


def test_a_model_of_a_tag_really_has_quick_gelu() -> None:
    with SkipInit():
        with_tag, without = models.create("ViT-B-32/openai"), models.create("ViT-B/32")
    kinds = [
        {type(m).__name__ for m in model.clip.modules() if "GELU" in type(m).__name__} for model in (with_tag, without)
    ]
    assert kinds == [{"QuickGELU"}, {"GELU"}]
    assert with_tag.model_cfg["quick_gelu"] is True
    assert with_tag.image_size == 224


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-L-14-366/openai", "The nearest is ViT-L-14-336/openai"),
        ("vit-b-32", "The nearest is ViT-B-32"),
        ("mcip/ViT-L-14", "There is no model 'mcip/ViT-L-14'"),
        ("toyshp", "The nearest is toyshop"),
        ("runs/nothing/here", "no open_clip name and no folder"),
        ("ViT-B-32/opnai", "no pretrained tag 'opnai'. The nearest is openai"),
        ("ViT-B-32", "names an architecture without weights. Add one of its pretrained tags (openai"),
        ("local-dir:/no/such/place", "There is no model folder /no/such/place"),
        (Path("ViT-B-32"), "There is no model folder ViT-B-32"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str | Path, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        models.load(name)
    assert message in str(caught.value)


def test_an_architecture_without_two_towers_is_refused(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {key: value for key, value in tiny_config["model_cfg"].items() if key != "vision_cfg"}
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: config | {"audio_cfg": {}})
    with pytest.raises(ModelError, match=r"RN50 does not describe an image tower and a text tower: .* vision_cfg"):
        models.load("RN50/openai")


def test_a_model_of_the_hub(tiny: Model, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, filename: str | None = None) -> str:
        asked.append((repo, filename))
        return str(tiny_folder / (filename or "open_clip_model.safetensors"))

    monkeypatch.setattr(names, "download_pretrained_from_hf", download)
    loaded = models.load("hf-hub:someone/tiny")
    assert loaded.fingerprint == tiny.fingerprint
    assert loaded.preprocess_cfg == tiny.preprocess_cfg
    assert asked == [("someone/tiny", "open_clip_config.json"), ("someone/tiny", None)]
    models.load("hf-hub:someone/tiny", weights=tiny_folder / "open_clip_model.safetensors")
    assert asked[2:] == [("someone/tiny", "open_clip_config.json")]


def test_a_model_of_the_hub_with_code_in_its_weights_is_refused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {None: tmp_path / "weights.bin", "open_clip_config.json": tiny_folder / "open_clip_config.json"}
    torch.save({"logit_scale": Mischief(tmp_path / "ran")}, files[None])
    monkeypatch.setattr(names, "download_pretrained_from_hf", lambda _, filename=None: str(files[filename]))
    with pytest.raises(ModelError, match=r"The weights of hf-hub:someone/tiny in .* cannot be used"):
        models.load("hf-hub:someone/tiny")
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_named(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reachable = ["open_clip_config.json"]

    def download(repo: str, filename: str | None = None) -> str:
        if filename in reachable:
            return str(tiny_folder / filename)
        raise OSError("no route to host")

    monkeypatch.setattr(names, "download_pretrained_from_hf", download)
    with pytest.raises(ModelError, match=r"weights of hf-hub:someone/tiny: no route to host .*once with a network"):
        models.load("hf-hub:someone/tiny")
    reachable.clear()
    with pytest.raises(ModelError, match=r"open_clip_config.json of someone/tiny .*hub: no route to host"):
        models.load("hf-hub:someone/tiny")


def test_a_tag_is_fetched_unless_weights_are_given(
    tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copy.deepcopy(tiny_config["model_cfg"])
    del config["quick_gelu"]
    source = models.from_config({"model_cfg": config}, seed=6)
    file = tmp_path / "tiny.safetensors"
    save_file(plain_state_dict(source.clip), file)
    asked = []

    def download(tag_cfg: dict[str, Any]) -> str:
        asked.append(tag_cfg)
        return str(file)

    monkeypatch.setattr(open_clip, "get_model_config", lambda name: copy.deepcopy(config) if name == "RN50" else None)
    monkeypatch.setattr(open_clip, "download_pretrained", download)
    loaded = models.load("RN50/openai")
    assert len(asked) == 1
    assert loaded.model_cfg["quick_gelu"] is True
    assert torch.equal(next(loaded.clip.parameters()), next(source.clip.parameters()))
    models.load("RN50/openai", weights=file)
    assert len(asked) == 1
    with pytest.warns(UserWarning, match="built without QuickGELU.*name it, as in RN50/openai"):
        models.load("RN50", weights=file)

    def offline(tag_cfg: dict[str, Any]) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(ModelError, match=r"Could not fetch the weights of RN50/openai: no route to host.*weights=FILE"):
        models.load("RN50/openai")
    file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setattr(open_clip, "download_pretrained", download)
    with pytest.raises(ModelError, match="cannot be used"):
        models.load("RN50/openai")


@pytest.mark.skipif(
    not (TOYSHOP_BASE / "open_clip_model.safetensors").is_file(), reason="the toyshop base model is not built"
)
def test_toyshop_is_in_the_package() -> None:
    model = models.load("toyshop")
    assert {p.dtype for p in model.clip.parameters()} == {torch.float32}
    assert model.encode_images(pixels_for(model)).shape == (3, model.embed_dim)


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_wrong_folders_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no open_clip_config.json"):
        models.load(tmp_path)
    (tiny_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights file .*open_clip_model.safetensors"):
        models.load(tiny_folder)
    config = tiny_folder / "open_clip_config.json"
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "has no model_cfg"),
        ('{"model_cfg": {"embed_dim": 4}}', "lacks vision_cfg, text_cfg"),
        ('{"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}, "colour": 1}}', "cannot build .*colour"),
    ):
        config.write_text(content)
        with pytest.raises(ModelError, match=message):
            models.load(tiny_folder)


def test_a_known_name_wins_over_a_folder_that_holds_no_model(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ViT-B-32").mkdir()
    Path("other").mkdir()
    assert resolve("ViT-B-32").folder is None
    with pytest.raises(ModelError, match=r"other is not a model folder"):
        resolve("other")
    models.save(tiny, "ViT-B-32")
    assert resolve("ViT-B-32").folder == Path("ViT-B-32")


def test_folders_with_torch_weights_load(tiny: Model, tiny_folder: Path) -> None:
    (tiny_folder / "open_clip_model.safetensors").unlink()
    torch.save(tiny.clip.state_dict(), tiny_folder / "open_clip_pytorch_model.bin")
    assert models.load(tiny_folder).fingerprint == tiny.fingerprint


# ---- weights put on top ----------------------------------------------------------------------------------------------


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


class Mischief:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


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


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def test_bpe_is_open_clips_own_with_its_context_length_and_cleaning(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path
) -> None:
    texts = ["A  Red CAT!", "l&amp;b", "x " * 40]
    expected = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(texts)
    assert expected.shape == (3, 12)
    assert torch.equal(tiny.tokenizer(texts), expected)
    assert torch.equal(tiny.tokenizer(["A  Red CAT!"]), tiny.tokenizer(["a red cat!"]))
    config = copy.deepcopy(tiny_config)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    canonical = models.from_config(config)
    assert torch.equal(canonical.tokenizer(["A  Red CAT!"]), canonical.tokenizer(["a red cat"]))


def test_without_transformers_images_work_and_texts_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = models.from_config(TINY_SIGLIP)
    assert model.encode_images(pixels_for(model, 1)).shape == (1, 64)
    with pytest.raises(ModelError, match=r"pip install 'mcip\[siglip\]'"):
        model.encode_texts(["a cat"])
    with pytest.warns(UserWarning, match="saved without the files of its tokenizer"):
        folder = models.save(model, tmp_path / "model")
    assert models.load(folder).fingerprint == model.fingerprint


class StubTokenizer:
    """Stands for the tokenizer of `transformers`: notes what it is given, and writes its files."""

    def __init__(self, place: str, options: dict[str, object]) -> None:
        self.place = place
        self.options = options
        self.seen: list[str] = []

    def __call__(self, texts: list[str], max_length: int, **_: object) -> types.SimpleNamespace:
        self.seen += texts
        return types.SimpleNamespace(input_ids=torch.ones(len(texts), max_length, dtype=torch.int64))

    def save_pretrained(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"):
            (Path(folder) / name).write_text("{}")


@pytest.fixture
def stub_transformers(monkeypatch: pytest.MonkeyPatch) -> list[StubTokenizer]:
    made: list[StubTokenizer] = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(place: str, **options: object) -> StubTokenizer:
            if str(place).startswith("nowhere"):
                raise OSError("no such repository")
            made.append(StubTokenizer(place, options))
            return made[-1]

    module = types.ModuleType("transformers")
    module.AutoTokenizer = AutoTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    return made


def test_siglip_text_is_cleaned_as_its_configuration_says(stub_transformers: list[StubTokenizer]) -> None:
    model = models.from_config(TINY_SIGLIP)
    model.encode_texts(["A Photo, of a CAT.", "two_dogs"])
    assert [stub.place for stub in stub_transformers] == ["timm/ViT-B-16-SigLIP"]
    assert stub_transformers[0].seen == ["a photo of a cat", "two dogs"]


def test_a_configuration_cannot_make_a_tokenizer_run_code(stub_transformers: list[StubTokenizer]) -> None:
    config = copy.deepcopy(TINY_SIGLIP)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    models.from_config(config).encode_texts(["a cat"])
    assert stub_transformers[0].options["trust_remote_code"] is False


def test_a_saved_folder_carries_its_tokenizer(stub_transformers: list[StubTokenizer], tmp_path: Path) -> None:
    first = models.save(models.from_config(TINY_SIGLIP), tmp_path / "first")
    again = models.load(first)
    again.encode_texts(["a cat"])
    assert stub_transformers[-1].place == str(first)
    open_clip.get_tokenizer(f"local-dir:{first}")
    second = models.save(models.load(first), tmp_path / "second")
    assert (second / "spiece.model").is_file()
    assert (second / "tokenizer.json").is_file()


def test_a_tokenizer_that_cannot_be_had_is_a_clear_error(stub_transformers: list[StubTokenizer]) -> None:
    config = copy.deepcopy(TINY_SIGLIP["model_cfg"])
    config["text_cfg"]["hf_tokenizer_name"] = "nowhere/nothing"
    with pytest.raises(ModelError, match=r"tokenizer nowhere/nothing of it: no such repository.*once with a network"):
        tokenizers.make_tokenizer(config, "it")
