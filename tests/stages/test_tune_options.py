"""The options of `mcip tune` from end to end: what the run's model and manifest are, and that it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from mcip import models
from mcip.core.errors import ConfigError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.models import compiled
from mcip.models.saved import SavedModel
from mcip.stages.tune import tune
from mcip.training.health import REPORT
from mcip.training.objectives import ImageTuning
from tests.tiny import contents
from tests.together import run_together

QUICK: dict[str, Any] = {"method": "gpr-ft", "steps": 4, "batch_size": 8, "lr": 1e-3, "device": "cpu"}


class StopError(Exception):
    """What stops a run in a test."""


def weights(folder: Path | SavedModel) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "open_clip_model.safetensors")


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next run fail after so many steps."""
    after_step, made = ImageTuning.after_step, [0]

    def stopping(self: ImageTuning) -> None:
        made[0] += 1
        if made[0] == step:
            monkeypatch.setattr(ImageTuning, "after_step", after_step)
            raise StopError
        after_step(self)

    monkeypatch.setattr(ImageTuning, "after_step", stopping)


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.9, "lora": 2, "classes_per_batch": 4, "keep": 0.5},
        {"accumulate": 3, "layer_decay": 0.5, "freeze": "conv1|ln_pre", "compile": "on"},
    ],
    ids=["average", "parts"],
)
def test_it_resumes_to_the_same_bytes(
    options: dict[str, Any], train: Path, base: Path, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    arguments = {**QUICK, "method": "mcip", "captions": mined, "steps": 7, "checkpoint_every": 2, **options}
    tune(str(train), tmp_path / "whole", str(base), **arguments)
    stop_at(6, monkeypatch)
    with pytest.raises(StopError):
        tune(str(train), tmp_path / "stopped", str(base), **arguments)
    assert read_json(tmp_path / "stopped" / "checkpoints" / "checkpoint.json")["latest"]["step"] == 4
    tune(str(train), tmp_path / "stopped", str(base), **arguments)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    made_from = read_json(tmp_path / "whole" / "manifest.json")["made_from"]
    assert {name: made_from[name] for name in options} == options


def test_low_rank_factors_are_merged_into_open_clips_model(train: Path, base: Path, tmp_path: Path) -> None:
    model = tune(str(train), tmp_path / "run", str(base), lora=2, **QUICK)
    before, after = weights(base), weights(model)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"visual.transformer.resblocks.{block}.{name}"
        for block in range(2)
        for name in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    }
    for name in changed:
        assert torch.linalg.svdvals(after[name] - before[name])[2] < 1e-6
    assert models.load(model).fingerprint == read_json(model / "manifest.json")["fingerprint"]
    open_clip.create_model(f"local-dir:{model}").load_state_dict(after, strict=True)


def test_frozen_parameters_stay(train: Path, base: Path, tmp_path: Path) -> None:
    model = tune(str(train), tmp_path / "run", str(base), freeze=r"conv1|resblocks\.0\.|embedding", **QUICK)
    before, after = weights(base), weights(model)
    for name, tensor in before.items():
        kept = not name.startswith("visual.") or any(word in name for word in ("conv1", "resblocks.0.", "embedding"))
        assert torch.equal(tensor, after[name]) == kept, name


def test_parts_of_a_batch_train_the_same_weights(train: Path, base: Path, mined: Path, tmp_path: Path) -> None:
    arguments = {**QUICK, "method": "mcip", "captions": mined, "lr": 1e-4, "steps": 3}
    whole = tune(str(train), tmp_path / "whole", str(base), **arguments)
    parts = tune(str(train), tmp_path / "parts", str(base), accumulate=3, **arguments)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=0, msg=name)


def test_staying_close_to_the_base(train: Path, base: Path, tmp_path: Path) -> None:
    free = tune(str(train), tmp_path / "free", str(base), **{**QUICK, "steps": 12})
    close = tune(str(train), tmp_path / "close", str(base), keep=100.0, **{**QUICK, "steps": 12})
    table = read_table(train)
    images = [table.image(row) for row in range(12)]
    old, new, kept = (models.load(model).encode(images, convert_to_tensor=True) for model in (base, free, close))
    assert (old * kept).sum(1).mean() > (old * new).sum(1).mean() + 1e-3


def test_batches_are_weighted_by_source(train: Path, base: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).to_pylist()
    for number, row in enumerate(rows):
        row["source"] = "a" if number < 8 else "b"
    path = tmp_path / "sources.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train).append(pa.field("source", pa.string()))), path)
    run = tmp_path / "run"
    tune(str(path), run, str(base), source_weights="a=3,b=1", **QUICK)
    weights_in_manifest, _ = read_json(run / "manifest.json")["made_from"]["source_weights"]
    assert weights_in_manifest == "a=3,b=1"
    with pytest.raises(ConfigError, match="'b' is in one of them only"):
        tune(str(path), tmp_path / "other", str(base), source_weights="a=3,c=1", **QUICK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": -1.0}, "keep is -1.0"),
        ({"lora": -1}, "lora is -1"),
        ({"freeze": "nothing"}, "matches no parameter"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"compile": "yes"}, "compile is 'yes'"),
        ({"compile": "graphs"}, "needs a CUDA device"),
        ({"compile": "graphs", "accumulate": 2}, "cannot go with --accumulate"),
        ({"max_loss_ratio": 0.5}, "max_loss_ratio is 0.5"),
        ({"classes_per_batch": 3}, "not a multiple of classes_per_batch 3"),
        ({"source_weights": "a=1"}, "needs a column `source`"),
        ({"source_weights": "a=1", "classes_per_batch": 2}, "cannot go together"),
    ],
)
def test_options_that_make_no_sense(
    wrong: dict[str, Any], message: str, train: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(str(train), tmp_path / "run", str(base), **{**QUICK, **wrong})


def test_a_run_that_diverges_stops_with_a_report(train: Path, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = {**QUICK, "steps": 30, "lr": 1e30, "checkpoint_every": 1}
    with pytest.raises(ConfigError, match=r"at step \d+; .*stopped\.json holds"):
        tune(str(train), run, str(base), **arguments)
    report = read_json(run / REPORT)
    assert report["steps"][-1]["step"] == report["step"]
    assert set(report["steps"][-1]["gradient_norms"]) == {"image tower", "class loss"}


def test_two_processes_take_batches_in_parts_as_one_does(train: Path, base: Path, mined: Path, tmp_path: Path) -> None:
    run: dict[str, Any] = {
        **QUICK, "data": str(train), "model": str(base), "method": "mcip", "captions": str(mined), "batch_size": 7,
        "lr": 1e-4, "accumulate": 2, "ema": 0.5, "layer_decay": 0.5, "keep": 0.5,
    }  # fmt: skip
    tune(out=tmp_path / "one", **run)
    run_together(2, _tune, {**run, "out": tmp_path / "two"})
    one, two = (weights(tmp_path / name / "model") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0, msg=name)


def _tune(run: dict[str, Any]) -> None:
    tune(**run)
