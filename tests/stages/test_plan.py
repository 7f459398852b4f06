"""Plans and recipes."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from typing import Any

import open_clip
import pytest

import mcip
from mcip.cli.main import parse
from mcip.core.errors import ConfigError
from mcip.recipes import read_recipe, recipe_names
from mcip.stages.plan import plan


def test_the_parts_follow_from_the_sizes() -> None:
    small = plan(model="ViT-B-32", batch_size=32, classes=1000, images=64_000, captions=10, rate=100.0, memory_gb=24)
    assert small.hours == pytest.approx(2000 * 32 / 100 / 3600)
    assert small.memory["class centers with theirs"] == 16 * 1000 * 512
    assert small.memory["logits"] == 12 * 32 * 1000
    assert small.disk["image embeddings (float16)"] == 2 * 64_000 * 512
    assert small.fits
    assert not plan(model="ViT-B-32", batch_size=32, memory_gb=1).fits
    most = small.largest_batch
    for batch_size, fits in ((most, True), (most + 2, False)):
        found = plan(model="ViT-B-32", batch_size=batch_size, classes=1000, memory_gb=24 * 0.9)
        assert found.fits == fits
    assert plan(model="ViT-B-32", batch_size=64).step_flops == pytest.approx(
        2 * plan(model="ViT-B-32", batch_size=32).step_flops
    )


def test_options_take_memory() -> None:
    given: dict[str, Any] = {"model": "ViT-B-32", "batch_size": 32, "classes": 1000, "images": 22, "captions": 11}
    plain, copied = plan(**given), plan(**given, keep=0.5, ema=0.999)
    weights = plain.parameters + 1000 * 512
    added = {"the base's tower (keep)": 4 * plain.parameters, "averaged weights (ema)": 4 * weights}
    assert copied.memory == plain.memory | added
    parts = plan(**given, accumulate=4)
    assert parts.memory["activations"] == plan(**given | {"batch_size": 8}).memory["activations"]
    assert parts.memory["logits"] == 12 * 8 * 1000
    assert parts.step_flops == plain.step_flops
    assert plain.mining_flops == 2 * 22 * 11 * 512


def test_mining_at_the_papers_size() -> None:
    found = plan(model="ViT-L-14", batch_size=1)
    assert found.mining_flops == pytest.approx(3.72e17, rel=1e-3)
    assert found.mining_hours == pytest.approx(0.33, abs=0.005)


def test_alignment_in_chunks() -> None:
    found = plan("openai-l14-336-re-a", model="ViT-B-32", batch_size=4096, chunk=64, captions=40_960, rate=100.0)
    assert found.stage == "aligning"
    assert found.hours == pytest.approx(10 * 4096 / 100 / 3600)
    assert found.memory["embeddings of both sides with gradients"] == 16 * 4096 * 512
    activations = found.memory["activations of a chunk of 64"]
    larger = plan("openai-l14-336-re-a", model="ViT-B-32", batch_size=8192, chunk=64)
    assert larger.memory["activations of a chunk of 64"] == activations
    for memory_gb in (1, 4):
        counted = plan("openai-l14-336-re-a", model="ViT-B-32", batch_size=4096, memory_gb=memory_gb).memory
        (chunk,) = (size for part, size in counted.items() if part.startswith("activations of a chunk"))
        assert chunk <= 0.5e9 * memory_gb


def test_wrong_plans() -> None:
    with pytest.raises(ConfigError, match="accumulate is 0"):
        plan(model="ViT-B-32", accumulate=0)
    with pytest.raises(ConfigError, match="name of a recipe, or a model"):
        plan()
    with pytest.raises(ConfigError, match="There is no recipe 'x'"):
        plan("x")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_fit_the_stages(name: str) -> None:
    for command, parameters in read_recipe(name).items():
        stage = getattr(mcip, command)
        assert parameters.keys() <= inspect.signature(stage).parameters.keys()
        parsed = parse([command, "--recipe", name, "--data", "d", "--out", "o", "--model", "m", "--lr", "0.5"])
        assert parsed is not None
        assert parsed[1] == {**parameters, "data": "d", "out": parsed[1]["out"], "model": "m", "lr": 0.5}
        if "model" in parameters:
            architecture, tag = parameters["model"].split("/")
            assert open_clip.get_pretrained_cfg(architecture, tag)


def head(name: str) -> dict[str, str]:
    """The sentences above a recipe, by the word that each begins with."""
    lines = files("mcip.recipes").joinpath(f"{name}.yaml").read_text().splitlines()
    text = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))
    parts = re.split(r"(?:^| )(Command|Time|Memory|Expect|Learning rate): ", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_say_what_they_take_and_why(name: str) -> None:
    said = head(name)
    assert f"--recipe {name}" in said["Command"]
    assert re.search(r"[\d.]+ h on one H200 at [\d,]+ .*[\d.]+ h on one A100", said["Time"])
    assert re.search(r"[\d.]+ GB", said["Memory"])
    assert "the paper's numbers" in said["Expect"] or "unknown" in said["Expect"]
    assert "authors" in said["Learning rate"]


@pytest.mark.parametrize("name", ["siglip2-b16-224-mcip", "datacomp-l14-re-a"])
def test_a_recipe_says_what_the_plan_says(name: str) -> None:
    found, said = plan(name), head(name)
    assert found.a100_hours is not None
    hours, a100_hours = map(float, re.findall(r"([\d.]+) h on one", said["Time"]))
    assert (hours, a100_hours) == pytest.approx((found.hours, found.a100_hours), rel=0.05)
    memory = float(re.findall(r"([\d.]+) GB", said["Memory"])[0])
    assert memory == pytest.approx(sum(found.memory.values()) / 1e9, rel=0.05)
