"""A model is pushed as the files that open_clip loads, with a card; without --yes nothing is sent."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import safetensors.torch
import timm
import torch
import yaml

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.models import Model
from mcip.reporting.lineage import Lineage, lineage
from mcip.stages.export import export
from mcip.stages.interpolate import interpolate
from mcip.stages.push import push
from tests.stages.hub import Hub, stand_in
from tests.tiny import CONFIG, pixels_for


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with stand_in() as hub:
        yield hub


@pytest.fixture
def tuned(tiny: Model, tmp_path: Path) -> Path:
    """A model tuned from ViT-L-14-336/openai, as its manifests say, then interpolated with its base."""
    tiny.source = "ViT-L-14-336/openai"
    made_by = {"method": "mcip", "steps": 100, "lr": 1e-5, "data": "5f1c" * 16, "model": "ab" * 32}
    end = models.save(tiny, tmp_path / "run" / "model", made_by)
    return Path(interpolate(end, tiny, tmp_path / "between", alpha=0.85))


def metadata(card: str) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return loaded


def test_without_yes_nothing_is_sent(hub: Hub, tuned: Path) -> None:
    shown = push(tuned, "me/shop", endpoint=hub.address)
    assert shown.url is None
    assert (hub.repos, hub.tokens) == ({}, set())
    assert set(shown.files) == {"README.md", "open_clip_config.json", "open_clip_model.safetensors"}
    assert shown.files["open_clip_model.safetensors"] == (tuned / "open_clip_model.safetensors").stat().st_size


def test_the_hub_gets_what_open_clip_loads(hub: Hub, tuned: Path, tmp_path: Path) -> None:
    pushed = push(tuned, "me/shop", yes=True, private=True, endpoint=hub.address)
    assert pushed.url == f"{hub.address}/me/shop/commit/1"
    assert "Bearer hf_test" in hub.tokens
    assert hub.private == {"me/shop"}
    files = hub.repos["me/shop"]
    assert {name: len(content) for name, content in files.items()} == pushed.files
    assert files["README.md"].decode() == pushed.card
    for name, content in files.items():
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_bytes(content)
    clip, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'hub'}")
    assert set(clip.state_dict()) == set(models.load(tuned).clip.state_dict())
    assert models.load(tmp_path / "hub").fingerprint == models.load(tuned).fingerprint
    # The repository is there by now.
    assert push(tuned, "me/shop", yes=True, endpoint=hub.address).url is not None


def test_the_files_are_those_of_open_clips_own_push(hub: Hub, base: Path, tmp_path: Path) -> None:
    """`open_clip.push_to_hf_hub` itself ends in a NameError with huggingface_hub 2; here is what writes its files."""
    pytest.importorskip("transformers")
    push(base, "me/ours", formats="all", yes=True, endpoint=hub.address)
    ours = hub.repos["me/ours"]
    config = json.loads(ours["open_clip_config.json"])
    # It takes no tokenizer but one of transformers; ours is given as the folder that we export.
    tokenizer = open_clip.tokenizer.HFTokenizer(str(export(base, tmp_path / "hf", format="hf")))
    write = importlib.import_module("open_clip.push_to_hf_hub").save_for_hf
    write(models.load(base).clip, tokenizer, config["model_cfg"], tmp_path / "theirs", safe_serialization=True)
    theirs = {file.name: file.read_bytes() for file in (tmp_path / "theirs").iterdir()}
    assert set(theirs) <= set(ours)
    other = json.loads(theirs["open_clip_config.json"])
    assert other["model_cfg"] == config["model_cfg"]
    assert {name: list(map(float, other["preprocess_cfg"][name])) for name in ("mean", "std")} == {
        name: config["preprocess_cfg"][name] for name in ("mean", "std")
    }  # fmt: skip
    found, expected = (safetensors.torch.load(files["open_clip_model.safetensors"]) for files in (ours, theirs))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_timm_reads_the_image_tower_of_the_same_file(tmp_path: Path) -> None:
    vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 32, "image_size": 224}
    model = models.from_config({**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "embed_dim": 512, "vision_cfg": vision}})
    file = models.save(model, tmp_path / "model") / "open_clip_model.safetensors"
    tower = timm.create_model(
        "vit_base_patch32_clip_224.laion2b", pretrained=True, pretrained_cfg_overlay={"file": str(file)},
        embed_dim=64, depth=1, num_heads=2,
    ).eval()  # fmt: skip
    pixels = pixels_for(model)
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), model.clip.visual(pixels), atol=1e-4, rtol=0)


def test_the_card_says_where_the_model_comes_from(tuned: Path, tmp_path: Path) -> None:
    card = push(tuned, "me/shop", tuned_on="Products-10k").card
    assert metadata(card) == {
        "library_name": "open_clip", "license": "mit", "base_model": ["timm/vit_large_patch14_clip_336.openai"],
        "tags": ["clip", "mcip", "image-retrieval"], "pipeline_tag": "zero-shot-image-classification",
    }  # fmt: skip
    assert "* **Tuned on** Products-10k\n" in card
    steps = card.partition("## How it was made\n\n")[2].partition("\n\n")[0].splitlines()
    assert steps == ["1. `mcip`: steps = 100, lr = 1e-05, data = 5f1c5f1c5f1c", "2. `interpolate`: alpha = 0.85"]
    assert str(tmp_path) not in card
    assert 'mcip.load("hf-hub:me/shop")' in card
    assert "mcip export hf-hub:me/shop folder --format sentence-transformers" in card
    assert metadata(push(tuned, "me/shop", license="cc-by-4.0").card)["license"] == "cc-by-4.0"


def test_the_card_of_a_model_in_a_folder_of_others(tiny: Model, tmp_path: Path) -> None:
    tiny.source = str(tmp_path / "secret" / "ours")
    card = push(models.save(tiny, tmp_path / "model"), "me/shop").card
    assert "secret" not in card
    assert metadata(card)["license"] == "unknown"
    assert "look it up" in card


@pytest.mark.parametrize(
    ("base", "license", "repo"),
    [
        ("toyshop", "apache-2.0", None),
        ("ViT-B-32/laion2b_s34b_b79k", "mit", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-L-14/dfn2b", "apple-amlr", "apple/DFN2B-CLIP-ViT-L-14"),
        ("ViT-SO400M-14-SigLIP-384/webli", "apache-2.0", "timm/ViT-SO400M-14-SigLIP-384"),
        ("hf-hub:me/base", "unknown", "me/base"),
    ],
)
def test_bases(base: str, license: str, repo: str | None) -> None:
    assert Lineage(base, ()).license == license
    assert Lineage(base, ()).base_repo == repo


def test_the_card_of_a_model_that_was_not_tuned_tells_no_story(tiny: Model, tmp_path: Path) -> None:
    card = push(models.save(tiny, tmp_path / "model"), "me/base", license="mit").card
    assert "## How to use it" in card
    for part in ("How it was made", "saved", "hexadecimal", "Citation", "Tuning by"):
        assert part not in card


def test_manifests_in_a_circle_end(tiny: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.source = str(folder)
    models.save(tiny, folder)
    assert lineage(folder).base == "model"


def test_results_stand_in_the_card_as_table_and_plot(tuned: Path, evaluated: list[Path], hub: Hub) -> None:
    pushed = push(tuned, "me/shop", results=evaluated, yes=True, endpoint=hub.address)
    assert "| model | i2i" in pushed.card
    assert "![The results of each task](results.png)" in pushed.card
    assert hub.repos["me/shop"]["results.png"].startswith(b"\x89PNG")


@pytest.fixture
def evaluated(base: Path, tuned: Path, val: Path, tmp_path: Path) -> list[Path]:
    from mcip.stages.evaluate import evaluate

    return list(evaluate([f"base={base}", f"tuned={tuned}"], tmp_path / "results", data=str(val), split="val").paths)


def test_all_formats_in_one_repository(hub: Hub, base: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pushed = push(base, "me/shop", formats="all", yes=True, endpoint=hub.address)
    assert "manifest.json" not in pushed.files
    for name, content in hub.repos["me/shop"].items():
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_bytes(content)
    assert models.load(tmp_path / "hub").fingerprint == models.load(base).fingerprint
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "hub")).__name__ == "CLIPModel"
    assert json.loads((tmp_path / "hub" / "modules.json").read_text())[0]["name"] == "0"
    assert 'SentenceTransformer("me/shop")' in pushed.card


def test_what_cannot_be_pushed(hub: Hub, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write it as OWNER/NAME"):
        push(tuned, "shop")
    with pytest.raises(ModelError, match="is not the name of a repository"):
        push(tuned, "../up/there")
    with pytest.raises(ModelError, match="is not a model that mcip saved"):
        push(tmp_path, "me/shop")
    hub.refuse = 403
    with pytest.raises(ModelError, match=r"The hub did not take me/shop: .*hf auth login"):
        push(tuned, "me/shop", yes=True, endpoint=hub.address)
