"""`tune` in several processes gives what one gives, whichever number of them goes on with a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mcip import models
from mcip.core.files import read_json
from mcip.core.processes import processes
from mcip.stages.tune import tune
from mcip.training.objectives import ImageTuning
from tests.together import free_port, run_together

# 7 images a step are divided unequally among 2 and 3 processes.
TRAINING: dict[str, Any] = {
    "steps": 6, "batch_size": 7, "lr": 1e-3, "device": "cpu", "checkpoint_every": 2,
}  # fmt: skip
SHARDED = {"parallel": "fsdp", "shard_centers_from": 1}
Run = dict[str, Any]


def _weights(out: Path) -> dict[str, Tensor]:
    """The tuned weights, without what no gradient but rounding errors moves: the biases of attention's keys."""
    weights = load_file(next((out / "model").glob("*.safetensors")))
    for name, value in weights.items():
        if name.endswith("in_proj_bias"):
            queries, _, values = value.chunk(3)
            weights[name] = torch.cat([queries, values])
    return {**weights, "centers": load_file(out / "class_centers.safetensors")["weight"]}


def test_biases_of_keys_have_no_gradient_and_change_no_embedding(base: Path) -> None:
    """Why `_weights` leaves them out: what they add to a query's products is the same for all keys."""
    tower = models.load(base).clip.visual.double()
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    biases = [value for name, value in tower.named_parameters() if name.endswith("in_proj_bias")]
    before = tower(pixels)
    before.square().sum().backward()
    for bias in biases:
        assert bias.grad is not None
        queries, keys, _ = bias.grad.chunk(3)
        assert keys.abs().max() < 1e-14 < 1e-5 < queries.abs().max()
        bias.data.chunk(3)[1].add_(1.0)
    torch.testing.assert_close(tower(pixels), before, rtol=1e-12, atol=1e-12)


def _check_equal(out: Path, expected: Path, resumed: bool = False, accumulate: int = 1) -> None:
    found, one = _weights(out), _weights(expected)
    assert found.keys() == one.keys()
    for name, value in one.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=partial("{}: {}".format, name))
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (out, expected)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
    if not resumed:  # which logs the mean of the steps since then
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    manifests = [read_json(run / "manifest.json") for run in (out, expected)]
    assert manifests[0]["made_from"] == {**manifests[1]["made_from"], "accumulate": accumulate}
    for name in ("unreadable", "best_step", "best_score"):
        assert manifests[0][name] == manifests[1][name]


@pytest.fixture(scope="module")
def runs(shared: Path, base: Path, train: Path, val: Path, mined: Path) -> dict[str, Run]:
    """MCIP; and GPR-FT where two images cannot be read, with sampled centers, patch dropout and validation."""
    table = pq.read_table(train)
    images = table["image"].to_pylist()
    for row in (3, 20):
        images[row] = {**images[row], "bytes": b"no image"} if isinstance(images[row], dict) else b"no image"
    broken = shared / "broken.parquet"
    column = table.schema.get_field_index("image")
    pq.write_table(
        table.set_column(column, table.schema.field(column), pa.array(images, table.schema.field(column).type)), broken
    )
    common = {"model": str(base), **TRAINING}
    return {
        "mcip": {"data": str(train), "captions": str(mined), **common},
        "gpr-ft": {
            **common, "data": str(broken), "method": "gpr-ft", "center_sample": 0.6, "max_unreadable": 0.5,
            "batch_size": 5, "validation": str(val), "validate_every": 3, "patch_dropout": 0.5,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def one(runs: dict[str, Run], shared: Path) -> dict[str, Path]:
    """The runs in one process."""
    for name, run in runs.items():
        tune(out=shared / f"one-{name}", **run)
    return {name: shared / f"one-{name}" for name in runs}


@pytest.mark.parametrize(
    ("method", "count", "changes"),
    [
        ("mcip", 2, {}), ("mcip", 3, SHARDED), ("gpr-ft", 3, {}), ("gpr-ft", 2, SHARDED),
        ("mcip", 2, {"accumulate": 2}), ("mcip", 2, {**SHARDED, "accumulate": 3}),
    ],
)  # fmt: skip
def test_several_processes_end_like_one(
    method: str, count: int, changes: Run, runs: dict[str, Run], one: dict[str, Path], tmp_path: Path
) -> None:
    run_together(count, _tune, {**runs[method], **changes, "out": tmp_path / "run"})
    _check_equal(tmp_path / "run", one[method], accumulate=changes.get("accumulate", 1))


def test_another_number_of_processes_goes_on(runs: dict[str, Run], one: dict[str, Path], tmp_path: Path) -> None:
    """With shards in two processes, whole in one, in shards again in three; each but the last is killed."""
    run = {**runs["mcip"], **SHARDED, "out": tmp_path / "run"}
    assert run_together(2, _tune, run, 3, ends=None)[1] == -signal.SIGKILL
    latest = read_json(tmp_path / "run" / "checkpoints" / "checkpoint.json")["latest"]
    assert latest["step"] == 2
    _check_no_file_holds_the_whole(tmp_path / "run" / "checkpoints", latest, one["mcip"])
    run_together(1, _tune, run, 5, ends=-signal.SIGKILL)
    assert read_json(tmp_path / "run" / "checkpoints" / "checkpoint.json")["latest"]["step"] == 4
    run_together(3, _tune, run)
    _check_equal(tmp_path / "run", one["mcip"], resumed=True)


def _check_no_file_holds_the_whole(folder: Path, latest: dict[str, Any], whole: Path) -> None:
    states = [torch.load(folder / file["file"], weights_only=True) for file in latest["parts"]]
    assert [len(state["parts"]) for state in states] == [len(states[0]["parts"])] * 2
    weights = sum(value.numel() for name, value in _weights(whole).items() if name.startswith("visual."))
    # Of weights and two moments; the class centers come on top.
    for state in states:
        assert weights * 3 / 2 < sum(part.numel() for part in state["parts"]) < weights * 3
    common = torch.load(folder / latest["file"], weights_only=True)
    assert not [name for name, value in common["tensors"].items() if isinstance(value, torch.Tensor)]


def _tune(run: Run, kill_at: int | None = None) -> None:
    """Tune; where a step is given, the last process dies in it, counted from 0."""
    if kill_at is not None:
        losses, steps = ImageTuning.losses, iter(range(_first_step(run["out"]), 100))

        def dying(self: ImageTuning, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
            team = processes()
            if next(steps) == kill_at and team.rank == team.count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return losses(self, batch, generator)

        ImageTuning.losses = dying  # type: ignore[method-assign]
    tune(**run)


def _first_step(out: Path) -> int:
    index = out / "checkpoints" / "checkpoint.json"
    return int(read_json(index)["latest"]["step"]) if index.exists() else 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process to kill in /proc")
def test_torchrun_ends_when_one_is_killed_and_resumes(runs: dict[str, Run], tmp_path: Path) -> None:
    run = {**runs["mcip"], "steps": 30, "checkpoint_every": 1, "out": str(tmp_path / "run")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in run.items()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    first = subprocess.Popen(
        [*launch, f"--master-port={free_port()}", "-m", "mcip", "tune", *flags], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "checkpoints" / "checkpoint.json").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    os.kill(_child(first.pid, "RANK=1"), signal.SIGKILL)
    killed = time.monotonic()
    said = first.communicate(timeout=60)[1]
    assert time.monotonic() - killed < 60
    assert first.returncode == 1
    assert "Signal 9 (SIGKILL) received" in said
    assert not (tmp_path / "run" / "model").exists()

    again = subprocess.run(
        [*launch, f"--master-port={free_port()}", "-m", "mcip", "tune", *flags], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("Resuming from step") == 1
    assert again.stdout.splitlines() == [str(tmp_path / "run" / "model")]
    tune(**{**run, "out": tmp_path / "one"})
    _check_equal(tmp_path / "run", tmp_path / "one", resumed=True)


def _child(parent: int, variable: str) -> int:
    """The child of a process that has a variable in its environment."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != parent:
            try:
                status, environment = (folder / "status").read_text(), (folder / "environ").read_text()
            except OSError:
                continue
            if f"PPid:\t{parent}\n" in status and variable in environment.split("\0"):
                return int(folder.name)
    raise AssertionError(f"process {parent} has no child with {variable}")
