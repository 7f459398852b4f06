"""What names of models stand for, and what a user meets when one of them is wrong."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mcip import models
from mcip.core.errors import ModelError
from mcip.models import Model, registry
from mcip.models.hub import check_repo
from mcip.models.registry import resolve, warn_without_tag
from mcip.models.state_dict import SkipInit, plain_state_dict
from tests.tiny import Mischief, pixels_for


def test_the_activation_is_that_of_the_tag() -> None:
    for name, tag in open_clip.list_pretrained():
        default = bool(open_clip.get_model_config(name).get("quick_gelu", False))
        expected = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", default)
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that holds files of this machine, by repository and name."""
    hub = Hub({}, [])
    monkeypatch.setattr(registry, "fetch_file", hub.fetch)
    return hub


@dataclass
class Hub:
    files: dict[str, Path]
    requests: list[tuple[str, ...]]

    def fetch(self, repo: str, *files: str) -> Path:
        self.requests.append((repo, *files))
        for file in files:
            if found := self.files.get(f"{repo}/{file}"):
                return found
        raise ModelError(f"Could not fetch {files[0]} of {repo}: no route to host.")


def test_a_model_of_the_hub(tiny: Model, tiny_folder: Path, hub: Hub) -> None:
    hub.files |= {f"someone/tiny/{path.name}": path for path in tiny_folder.iterdir()}
    loaded = models.load("hf-hub:someone/tiny")
    assert loaded.fingerprint == tiny.fingerprint
    assert loaded.preprocess_cfg == tiny.preprocess_cfg
    weights = ("someone/tiny", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert hub.requests == [("someone/tiny", "open_clip_config.json"), weights]
    models.load("hf-hub:someone/tiny", weights=tiny_folder / "open_clip_model.safetensors")
    assert hub.requests[2:] == [("someone/tiny", "open_clip_config.json")]


def test_a_model_of_the_hub_with_code_in_its_weights_is_refused(tiny_folder: Path, tmp_path: Path, hub: Hub) -> None:
    torch.save({"logit_scale": Mischief(tmp_path / "ran")}, tmp_path / "weights.bin")
    hub.files = {
        "someone/tiny/open_clip_config.json": tiny_folder / "open_clip_config.json",
        "someone/tiny/open_clip_pytorch_model.bin": tmp_path / "weights.bin",
    }
    with pytest.raises(ModelError, match=r"The weights of hf-hub:someone/tiny in .* cannot be used"):
        models.load("hf-hub:someone/tiny")
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_named(tiny_folder: Path, hub: Hub) -> None:
    with pytest.raises(ModelError, match=r"Could not fetch open_clip_config.json of someone/tiny: no route"):
        models.load("hf-hub:someone/tiny")
    hub.files["someone/tiny/open_clip_config.json"] = tiny_folder / "open_clip_config.json"
    with pytest.raises(ModelError, match=r"Could not fetch open_clip_model.safetensors of someone/tiny: no route"):
        models.load("hf-hub:someone/tiny")


def test_a_tag_is_fetched_unless_weights_are_given(
    tiny_config: dict[str, Any], tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copy.deepcopy(tiny_config["model_cfg"])
    del config["quick_gelu"]
    source = models.from_config({"model_cfg": config}, seed=6)
    file = tmp_path / "tiny.safetensors"
    save_file(plain_state_dict(source.clip), file)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: copy.deepcopy(config) if name == "RN50" else None)
    with pytest.raises(ModelError, match=r"Could not fetch open_clip_model.safetensors of timm/resnet50_clip.openai"):
        models.load("RN50/openai")
    hub.files["timm/resnet50_clip.openai/open_clip_model.safetensors"] = file
    hub.requests.clear()
    loaded = models.load("RN50/openai")
    assert len(hub.requests) == 1
    assert loaded.model_cfg["quick_gelu"] is True
    assert torch.equal(next(loaded.clip.parameters()), next(source.clip.parameters()))
    models.load("RN50/openai", weights=file)
    assert len(hub.requests) == 1
    with pytest.warns(UserWarning, match="built without QuickGELU.*name it, as in RN50/openai"):
        models.load("RN50", weights=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be used"):
        models.load("RN50/openai")


def test_every_tag_names_a_repository_of_the_hub() -> None:
    for name, tag in open_clip.list_pretrained():
        repo, _, file = open_clip.get_pretrained_cfg(name, tag)["hf_hub"].rpartition("/")
        check_repo(repo)
        assert file == "" or Path(file).suffix in (".bin", ".safetensors", ".npz", ".pt", ".pth"), (name, tag)


def test_a_name_without_a_tag_warns_of_the_preprocessing_of_its_tags() -> None:
    with pytest.warns(UserWarning, match=r"default preprocessing.*one of its tags webli, name it") as caught:
        warn_without_tag("ViT-SO400M-14-SigLIP-384", resolve("ViT-SO400M-14-SigLIP-384"))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_without_tag("ViT-g-14", resolve("ViT-g-14"))


def test_toyshop_is_in_the_package() -> None:
    model = models.load("toyshop")
    assert {p.dtype for p in model.clip.parameters()} == {torch.float32}
    assert model.embed_pixels(pixels_for(model)).shape == (3, model.embed_dim)


def test_wrong_folders_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no open_clip_config.json"):
        models.load(tmp_path)
    (tiny_folder / "manifest.json").unlink()
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
    (tiny_folder / "manifest.json").unlink()
    (tiny_folder / "open_clip_model.safetensors").unlink()
    torch.save(tiny.clip.state_dict(), tiny_folder / "open_clip_pytorch_model.bin")
    assert models.load(tiny_folder).fingerprint == tiny.fingerprint
