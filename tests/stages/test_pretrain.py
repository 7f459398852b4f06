"""Pretraining from scratch: both towers learn, unused tokens stay zero, and it resumes after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mcip import models
from mcip.core.errors import ArtefactError, DataError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.models.saved import SavedModel
from mcip.models.text_training import forget_unused_tokens
from mcip.stages.pretrain import pretrain
from mcip.toyshop.captions import every_phrase
from tests.tiny import contents, run, run_killed_when

QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "warmup": 2, "device": "cpu", "validate_every": 3}


def weights(folder: Path | SavedModel) -> dict[str, torch.Tensor]:
    return load_file(folder / "open_clip_model.safetensors")


def test_both_towers_learn_and_unused_tokens_stay_zero(train: Path, val: Path, base: Path, tmp_path: Path) -> None:
    model = pretrain(
        str(train), tmp_path / "run", base, validation=str(val), vocabulary=every_phrase(), seed=3, **QUICK
    )
    start, after = models.create(str(base), 3), weights(model)
    for name, tensor in start.clip.state_dict().items():
        if tensor.is_floating_point() and name != "attn_mask":
            assert not torch.equal(tensor, after[name]), name
    used = torch.zeros(49408, dtype=torch.bool)
    used[start.tokenizer(every_phrase()).unique()] = True
    assert not after["token_embedding.weight"][~used].any()
    assert after["token_embedding.weight"][used].any(1).all()
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert list(manifest["validation"]) == ["0", "3", "6"]
    assert set(manifest["validation"]["6"]) == {"i2i_map", "t2i_r5"}


def test_without_a_vocabulary_the_captions_count(train: Path, base: Path) -> None:
    model = models.load(base)
    captions = [caption for texts in read_table(train).captions for caption in texts]
    forget_unused_tokens(model, captions)
    used = model.tokenizer(captions).unique()
    assert set(model.clip.token_embedding.weight.any(1).nonzero()[:, 0].tolist()) == set(used.tolist())


def test_killed_and_started_again(train: Path, base: Path, tmp_path: Path) -> None:
    arguments = {
        "data": str(train), "config": base, "steps": 12, "batch_size": 8, "checkpoint_every": 2, "device": "cpu",
    }  # fmt: skip
    assert run("pretrain", {**arguments, "out": tmp_path / "a"}) == 0
    again = {**arguments, "out": tmp_path / "b"}
    run_killed_when("pretrain", again, lambda: (tmp_path / "b" / "checkpoints" / "checkpoint.json").exists())
    assert run("pretrain", again) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_settings_are_refused(train: Path, base: Path, tmp_path: Path) -> None:
    pretrain(str(train), tmp_path / "run", base, **QUICK)
    with pytest.raises(ArtefactError, match=r"\(seed: 0 there, 1 now\)"):
        pretrain(str(train), tmp_path / "run", base, seed=1, **QUICK)


def test_images_without_captions_cannot_be_pretrained_on(train: Path, base: Path, tmp_path: Path) -> None:
    rows = [{**row, "captions": []} for row in pq.read_table(train).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="has a caption: pretraining needs captioned images"):
        pretrain(str(tmp_path / "t.parquet"), tmp_path / "run", base, **QUICK)
