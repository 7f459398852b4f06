"""Realignment: the text tower moves, the images stay where they are to the last bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mcip import models
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings.caption_tokens import tokenize_captions
from mcip.embeddings.encode import embed_images
from mcip.embeddings.store import Embeddings
from mcip.models.saved import SavedModel
from mcip.stages.align import align
from mcip.training import EpochOrder
from mcip.training.objectives.text_alignment import TextAlignment
from tests.tiny import CONFIG

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 8, "lr": 1e-3, "device": "cpu"}


def weights(folder: Path | SavedModel) -> dict[str, torch.Tensor]:
    return load_file(folder / "open_clip_model.safetensors")


def test_only_the_text_tower_changes(train: Path, base: Path, tmp_path: Path) -> None:
    model = align(str(train), tmp_path / "run", str(base), **QUICK)
    before, after = weights(base), weights(model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("visual."), name
    table = read_table(train)
    actual, others = (embed_images(table, models.load(m), tmp_path / f"e-{i}") for i, m in enumerate((base, model)))
    assert actual.array().tobytes() == others.array().tobytes()
    assert not np.allclose(models.load(base).encode("a mug"), models.load(model).encode("a mug"))
    assert read_json(tmp_path / "run" / "manifest.json")["pairs"] == 32


def objective(model: models.Model, train: Path, folder: Path, **changes: Any) -> TextAlignment:
    table = read_table(train)
    images = embed_images(table, model, folder)
    settings: dict[str, Any] = {
        "seed": 3, "lr": 1e-3, "weight_decay": 0.2,
    }  # fmt: skip
    order = EpochOrder(len(table), 8, 3)
    captions = tokenize_captions(table, model, folder.with_name("tokens"), chunk_captions=24)
    return TextAlignment(model, images, captions, order, **{**settings, **changes})


def test_matrices_decay_and_vectors_do_not(base: Path, train: Path, tmp_path: Path) -> None:
    model = models.load(base)
    alignment = objective(model, train, tmp_path / "e")
    matrices, vectors = alignment.groups
    assert (matrices.weight_decay, vectors.weight_decay) == (0.2, 0.0)
    assert {p.ndim for p in matrices.parameters} == {2}
    assert {p.ndim for p in vectors.parameters} == {0, 1}
    assert any(p is model.clip.logit_scale for p in vectors.parameters)
    assert not any(name.startswith("visual") for name in alignment.tensors)
    alignment.give_back()
    assert models.load(base).fingerprint == model.fingerprint


def test_the_logit_scale_stays_within_clips_bound(base: Path, train: Path, tmp_path: Path) -> None:
    model = models.load(base)
    alignment = objective(model, train, tmp_path / "e")
    for value, expected in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        with torch.no_grad():
            model.clip.logit_scale.fill_(value)
        alignment.after_step()
        assert model.clip.logit_scale.item() == pytest.approx(expected)


def test_each_step_draws_one_of_an_images_own_captions(base: Path, train: Path, tmp_path: Path) -> None:
    model, table = models.load(base), read_table(train)
    alignment = objective(model, train, tmp_path / "e")
    drawn = set()
    vectors = Embeddings(tmp_path / "e").array()
    for step, batch in enumerate(alignment.batches(range(12))):
        places = [int(np.flatnonzero((vectors == vector).all(axis=1))[0]) for vector in batch.images.numpy()]
        assert sorted(places) == sorted(alignment.order.batch(step))
        for row, actual in zip(places, torch.cat(batch.chunks), strict=True):
            expected = model.tokenizer(table.captions[row])
            matches = [torch.equal(actual, tokens[: len(actual)]) for tokens in expected]
            assert not expected[matches.index(True), len(actual) :].any()
            drawn.add((row, matches.index(True)))
    assert {place for _, place in drawn} == {0, 1}
    again = [batch.chunks for batch in alignment.batches(range(5, 7))]
    for chunks, batch in zip(again, list(alignment.batches(range(12)))[5:7], strict=True):
        assert torch.equal(torch.cat(chunks), torch.cat(batch.chunks))


def test_only_the_last_layers(train: Path, base: Path, tmp_path: Path) -> None:
    model = align(str(train), tmp_path / "run", str(base), unlocked_layers=1, **QUICK)
    before, after = weights(base), weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "text_projection" in moved
    assert "token_embedding.weight" not in moved
    assert len(moved) < len([name for name in before if not name.startswith("visual.")])


def test_a_logit_bias_stays_as_it_is(train: Path, tmp_path: Path) -> None:
    config = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "custom_text": True, "init_logit_bias": -10}}
    base = models.save(models.from_config(config, seed=2), tmp_path / "base")
    model = align(str(train), tmp_path / "run", str(base), loss="infonce", grad_checkpointing=True, **QUICK)
    before, after = weights(base), weights(model)
    assert before["logit_bias"].item() == after["logit_bias"].item() == -10
    assert before["logit_scale"].item() != after["logit_scale"].item()
    assert not torch.equal(before["text.token_embedding.weight"], after["text.token_embedding.weight"])


def test_images_without_a_caption_are_left_out(train: Path, base: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).to_pylist()
    for number, row in enumerate(rows):
        row["captions"] = row["captions"] if number % 4 else []
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), tmp_path / "t.parquet")
    align(str(tmp_path / "t.parquet"), tmp_path / "run", str(base), **QUICK)
    assert read_json(tmp_path / "run" / "manifest.json")["pairs"] == 24
    pq.write_table(
        pa.Table.from_pylist([{**row, "captions": []} for row in rows], pq.read_schema(train)), tmp_path / "n.parquet"
    )
    with pytest.raises(DataError, match="has a caption: Re-A needs captioned images"):
        align(str(tmp_path / "n.parquet"), tmp_path / "none", str(base), **QUICK)


def test_validation_split_must_not_be_trained_on(train: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would be trained on as well"):
        align(str(train), tmp_path / "run", str(base), validate_every=1, validation_split="train", **QUICK)
    with pytest.raises(ConfigError, match="nothing to validate on"):
        align(str(train), tmp_path / "run", str(base), validate_every=1, **QUICK)
