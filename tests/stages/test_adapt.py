"""Adapting: the matrix is that of a naive loop, is folded wherever it can be, and carried where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, DataError, ModelError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings import Embeddings
from mcip.embeddings.encode import copy_embeddings, embed_images
from mcip.evaluation.validation import Validation
from mcip.losses import ArcMargin
from mcip.models.adapter import apply_adapter
from mcip.models.carried import ADAPTER_FILE, carried, read_adapter, write_adapter
from mcip.stages.adapt import adapt
from mcip.stages.embed import embed
from mcip.stages.export import export
from mcip.stages.interpolate import interpolate
from mcip.training import EpochOrder
from mcip.training.settings import learning_rate_factor
from tests.tiny import CONFIG, TINY_SIGLIP, pixels_for

# The tiny SigLIP names a tokenizer whose files are not there.
pytestmark = pytest.mark.filterwarnings("ignore:.* is saved without the files of its tokenizer")
QUICK: dict[str, Any] = {"steps": 4, "batch_size": 8, "lr": 1e-2, "device": "cpu"}
RESNET: dict[str, Any] = {**CONFIG, "model_cfg": {
    **CONFIG["model_cfg"], "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
}}  # fmt: skip
_TIMM: dict[str, Any] = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}


def with_timm(**vision: Any) -> dict[str, Any]:
    """A configuration with a timm image tower."""
    model_cfg = {**TINY_SIGLIP["model_cfg"], "vision_cfg": {**_TIMM, **vision}}
    return {**TINY_SIGLIP, "model_cfg": model_cfg}


FOLDED = {
    "vit": CONFIG,
    "custom-text": {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "custom_text": True}},
    "resnet": RESNET,
    "timm-linear": with_timm(timm_pool="avg", timm_proj="linear", timm_proj_bias=True),
    "timm-mlp": with_timm(timm_pool="avg", timm_proj="mlp"),
    "timm-classifier": with_timm(timm_pool="avg", timm_proj=""),
}


def matrix_of(dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.eye(dim) + 0.3 * torch.randn(dim, dim, generator=generator)


@pytest.mark.parametrize("name", FOLDED)
def test_the_matrix_is_folded_so_that_open_clip_loads_it_strictly(name: str, tmp_path: Path) -> None:
    model = models.from_config(FOLDED[name], seed=2)
    pixels, matrix = pixels_for(model), matrix_of(model.embed_dim)
    expected = F.normalize(model.embed_pixels(pixels) @ matrix, dim=-1)
    assert apply_adapter(model, matrix)
    folder = models.save(model, tmp_path / "model")
    assert not (folder / ADAPTER_FILE).exists()
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        actual = F.normalize(clip.encode_image(pixels), dim=-1)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_stored_embeddings_by_the_matrix_are_those_of_the_adapted_model(train: Path, tmp_path: Path) -> None:
    table, model, adapted = read_table(train), models.load("toyshop"), models.load("toyshop")
    matrix = matrix_of(model.embed_dim)
    apply_adapter(adapted, matrix)
    stored = embed_images(table, model, tmp_path / "stored")
    rows = table.subset(range(3, 9))
    made = copy_embeddings(stored, rows, adapted, tmp_path / "made", matrix=matrix.numpy())
    expected = embed_images(rows, adapted, tmp_path / "expected")
    assert made.ids == expected.ids == rows.ids
    assert made.artefact.manifest["made_from"] == expected.artefact.manifest["made_from"]
    np.testing.assert_allclose(made.take(range(6)), expected.take(range(6)), atol=1e-5)


def test_what_cannot_be_folded_is_carried(tmp_path: Path) -> None:
    model = models.from_config(TINY_SIGLIP, seed=2)
    pixels, matrix, before = pixels_for(model), matrix_of(64), model.fingerprint
    expected = F.normalize(model.embed_pixels(pixels) @ matrix, dim=-1)
    assert not apply_adapter(model, matrix)
    assert model.fingerprint != before
    torch.testing.assert_close(model.copy().embed_pixels(pixels), expected, atol=1e-5, rtol=0)
    loaded = models.load(models.save(model, tmp_path / "model"))
    assert loaded.fingerprint == model.fingerprint
    torch.testing.assert_close(loaded.embed_pixels(pixels), expected, atol=1e-5, rtol=0)
    assert models.load(models.save(loaded, tmp_path / "again")).fingerprint == model.fingerprint
    (tmp_path / "model" / ADAPTER_FILE).unlink()
    with pytest.raises(ArtefactError, match=f"{ADAPTER_FILE} is missing"):
        models.load(tmp_path / "model")
    # As in a folder that was copied without its manifest.
    (tmp_path / "model" / "manifest.json").unlink()
    with pytest.raises(ModelError, match="There is no adapter"):
        models.load(tmp_path / "model")


def test_a_carried_matrix_is_multiplied_by_the_next(tmp_path: Path) -> None:
    model = models.from_config(TINY_SIGLIP, seed=2)
    pixels, first, second = pixels_for(model), matrix_of(64), matrix_of(64).T.contiguous()
    expected = F.normalize(model.embed_pixels(pixels) @ first @ second, dim=-1)
    apply_adapter(model, first)
    apply_adapter(model, second)
    torch.testing.assert_close(model.embed_pixels(pixels), expected, atol=1e-5, rtol=0)


def test_a_layer_that_is_not_the_last_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.from_config(CONFIG, seed=2)
    fingerprint = model.fingerprint
    forward = type(model.clip.visual).forward
    monkeypatch.setattr(type(model.clip.visual), "forward", lambda self, x: forward(self, x).tanh())
    expected = F.normalize(model.embed_pixels(pixels_for(model)) @ matrix_of(16), dim=-1)
    assert not apply_adapter(model, matrix_of(16))
    torch.testing.assert_close(model.embed_pixels(pixels_for(model)), expected, atol=1e-5, rtol=0)
    model.clip.visual.mcip_adapter = None
    assert model.fingerprint == fingerprint


def test_a_carried_matrix_is_interpolated_and_not_exported(tmp_path: Path) -> None:
    model = models.from_config(TINY_SIGLIP, seed=2)
    base = models.save(model, tmp_path / "base")
    apply_adapter(model, matrix_of(64))
    adapted = models.save(model, tmp_path / "adapted")
    between = interpolate(str(adapted), str(base), tmp_path / "between", alpha=0.25).load()
    actual = carried(between.clip)
    assert actual is not None
    torch.testing.assert_close(actual, 0.75 * torch.eye(64) + 0.25 * matrix_of(64))
    for out, form in ((tmp_path / "model.pth", "pth"), (tmp_path / "plain", "open_clip")):
        with pytest.raises(ModelError, match="does not end in a linear projection"):
            export(str(adapted), out, format=form)  # type: ignore[arg-type]
    weights = base / "open_clip_model.safetensors"
    assert models.load(adapted, weights).fingerprint == models.load(base).fingerprint
    assert models.load(models.load(adapted), weights).fingerprint == models.load(base).fingerprint


def test_the_matrix_is_that_of_a_naive_loop(train: Path, base: Path, tmp_path: Path) -> None:
    model = adapt(str(train), tmp_path / "run", str(base), keep=0.5, margin=0.2, scale=20.0, **QUICK)
    table = read_table(train)
    images = torch.from_numpy(Embeddings(tmp_path / "run" / "images").array())
    classes = sorted({label for label in table.labels if label})
    labels = torch.tensor([classes.index(label or "") for label in table.labels])
    means = torch.stack([images[labels == number].sum(dim=0) for number in range(len(classes))])
    centers = ArcMargin(len(classes), 16, 0.2, 20.0)
    centers.weight.data.copy_(F.normalize(means, dim=-1))
    matrix = torch.nn.Parameter(torch.eye(16))
    groups = [{"params": [matrix], "weight_decay": 0.0}, {"params": [centers.weight], "weight_decay": 0.0}]
    optimizer, order = torch.optim.AdamW(groups), EpochOrder(len(table), 8, 37)
    for step in range(4):
        for group, factor in zip(optimizer.param_groups, (1, 10), strict=True):
            group["lr"] = 1e-2 * factor * learning_rate_factor(step, 4, 0, 0.1)
        some = images[order.batch(step)]
        adapted = F.normalize(some @ matrix, dim=-1)
        loss = centers(adapted, labels[order.batch(step)]) + 0.5 * (1 - (adapted * some).sum(dim=-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in (matrix, centers.weight):
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
    expected = matrix.detach()
    assert (expected - torch.eye(16)).abs().max() > 0.01
    torch.testing.assert_close(read_adapter(tmp_path / "run" / ADAPTER_FILE), expected, atol=1e-5, rtol=0)
    pixels = pixels_for(models.load(base))
    torch.testing.assert_close(
        model.load().embed_pixels(pixels), F.normalize(models.load(base).embed_pixels(pixels) @ expected, dim=-1),
        atol=1e-5, rtol=0,
    )  # fmt: skip


def test_only_the_image_tower_changes_and_the_run_is_kept(train: Path, base: Path, mined: Path, tmp_path: Path) -> None:
    model = adapt(str(train), tmp_path / "run", str(base), captions=mined, **QUICK)
    before, after = models.load(base).clip.state_dict(), model.load().clip.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["visual.proj"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "adapter.safetensors", "class_centers.safetensors", "classes.json", "images", "manifest.json",
        "metrics.jsonl", "model", "tensorboard",
    ]  # fmt: skip
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["folded"]
    assert manifest["base"] == str(base)


def test_embeddings_that_are_there_are_used(
    train: Path, val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = embed(str(train), tmp_path / "stored", str(base), decode="exact", device="cpu")
    adapt(str(train), tmp_path / "embedded", str(base), **QUICK)
    other = embed(str(val), tmp_path / "other", str(base), device="cpu")
    toys = embed(str(train), tmp_path / "toys", models.from_config(CONFIG, seed=9), device="cpu")
    with pytest.raises(ArtefactError, match="does not hold the embeddings of the images of"):
        adapt(str(train), tmp_path / "run", str(base), embeddings=other.folder, **QUICK)
    with pytest.raises(ArtefactError, match="embed the images with the model that is trained"):
        adapt(str(train), tmp_path / "run", str(base), embeddings=toys.folder, **QUICK)
    monkeypatch.setattr("mcip.embeddings.encode.encode_pixels", None)
    adapt(str(train), tmp_path / "run", str(base), embeddings=stored.folder, **QUICK)
    assert torch.equal(
        read_adapter(tmp_path / "run" / ADAPTER_FILE), read_adapter(tmp_path / "embedded" / ADAPTER_FILE)
    )


def test_validation_encodes_images_once_and_scores_the_adapted_model(
    train: Path, val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = models.Model.embed_pixels

    def spy(self: models.Model, pixels: Tensor) -> Tensor:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(models.Model, "embed_pixels", spy)
    run = tmp_path / "run"
    validated: dict[str, Any] = {**QUICK, "validation": str(val), "validate_every": 1}
    model = adapt(str(train), run, str(base), select="i2i_map", **validated)
    assert sum(encoded) <= len(read_table(train)) + len(read_table(val)) + 4  # and the check of the folding
    manifest = read_json(run / "manifest.json")
    scores = manifest["validation"]
    assert len(scores) == 5
    assert manifest["best_score"] == max(score["i2i_map"] for score in scores.values())
    for step, folder in (("0", base), (str(manifest["best_step"]), model)):
        found = Validation(models.load(folder), read_table(val), "both", torch.device("cpu"))()
        assert scores[step] == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"caption_weight": 0.0}, "caption_weight is 0.0"),
        ({"keep": -1.0}, "keep is -1.0"),
        ({"steps": 0}, "0 steps to train"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validate_every": 2}, "nothing to validate on"),
    ],
)
def test_wrong_parameters(wrong: dict[str, Any], message: str, train: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        adapt(str(train), tmp_path / "run", str(base), **{**QUICK, **wrong})


def test_images_without_labels_are_refused(train: Path, base: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled.parquet"
    pq.write_table(pq.read_table(train).drop_columns("label"), unlabelled)
    with pytest.raises(DataError, match="has a label"):
        adapt(str(unlabelled), tmp_path / "run", str(base), **QUICK)


def test_what_is_no_matrix_is_refused(tmp_path: Path) -> None:
    for content in (torch.ones(2, 3), torch.tensor([[np.nan]])):
        write_adapter(tmp_path / ADAPTER_FILE, content)
        with pytest.raises(ModelError, match="no square matrix of finite numbers"):
            read_adapter(tmp_path / ADAPTER_FILE)
    (tmp_path / ADAPTER_FILE).write_bytes(b"none")
    with pytest.raises(ModelError, match="cannot be read as an adapter"):
        read_adapter(tmp_path / ADAPTER_FILE)
