"""Realignment in several processes ends with the weights of one, cached gradients included."""

from __future__ import annotations

import atexit
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mcip import models
from mcip.core.files import read_json
from tests.tiny import CONFIG
from tests.together import run_together

BIASED = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "custom_text": True, "init_logit_bias": -10}}
STOPPED = 3
# 10 pairs are no multiple of 3, and a chunk of 3 none of any share. Where a gradient is 0 but for rounding, as that of
# the keys' biases, AdamW makes steps of up to the learning rate of it.
SETTINGS: dict[str, Any] = {
    "steps": 4, "batch_size": 10, "lr": 2e-4, "chunk": 3, "device": "cpu", "precision": "fp32", "checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture
def biased(tmp_path: Path) -> str:
    return str(models.save(models.from_config(BIASED, seed=2), tmp_path / "base"))


def align(data: Path, model: str, out: Path, count: int, stop_after: int | None = None, **changes: Any) -> Path:
    """Run the stage in processes that were started together; the file of the weights."""
    arguments = {"data": str(data), "out": out, "model": model, **SETTINGS, **changes}
    run_together(count, one_of_several, arguments, stop_after, ends=0 if stop_after is None else STOPPED)
    return out / "model" / "open_clip_model.safetensors"


def one_of_several(arguments: dict[str, Any], stop_after: int | None) -> None:
    if stop_after is not None:
        _stop_after(stop_after)
    importlib.import_module("mcip.stages.align").align(**arguments)
    atexit._run_exitfuncs()  # which processes of multiprocessing leave out


def _stop_after(steps: int) -> None:
    from mcip.training.objectives import TextAlignment

    made, after_step = 0, TextAlignment.after_step

    def stopping(self: TextAlignment) -> None:
        nonlocal made
        made += 1
        if made > steps:
            os._exit(STOPPED)
        after_step(self)

    TextAlignment.after_step = stopping  # type: ignore[method-assign]


def assert_same(actual: Path, expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(load_file(actual), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_weights_are_those_of_one_process(loss: str, train: Path, biased: str, tmp_path: Path) -> None:
    expected = load_file(align(train, biased, tmp_path / "1", 1, loss=loss))
    start = load_file(Path(biased) / "open_clip_model.safetensors")
    for name in ("logit_scale", "text.token_embedding.weight", *(["logit_bias"] if loss == "sigmoid" else [])):
        assert (expected[name] - start[name]).abs().max() > 3e-4, name
    for count in (2, 3):
        out = tmp_path / str(count)
        assert_same(align(train, biased, out, count, loss=loss), expected)
        assert not (out / "checkpoints").exists()
        manifest = read_json(out / "manifest.json")
        assert (manifest["loss"], manifest["calibrated"]) == (loss, loss == "sigmoid")


def test_another_number_of_processes_resumes(train: Path, base: Path, tmp_path: Path) -> None:
    expected = load_file(align(train, str(base), tmp_path / "1", 1))
    out = tmp_path / "resumed"
    align(train, str(base), out, 2, stop_after=2)
    assert (out / "checkpoints" / "checkpoint.json").exists()
    assert_same(align(train, str(base), out, 3), expected)


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0"],
    ],
)
def test_launchers_start_the_command(launcher: list[str], train: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", *launcher, "-m", "mcip", "align",
        str(train), str(out), str(base), "--steps", "1", "--batch-size", "6", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    manifest = read_json(out / "manifest.json")
    assert (manifest["steps_made"], manifest["computed_on"]["processes"]) == (1, 2)
    # The first process speaks for both.
    assert done.stderr.count("Next, ") == 1
