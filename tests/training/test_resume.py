"""Stages that are killed with SIGKILL and started again end with the same artefact as undisturbed ones, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import contents, run, run_killed_over_and_over, run_killed_when


def logged_step(folder: Path) -> int:
    """The last step in a run's metrics; -1 where there is none."""
    path = folder / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else -1


@pytest.fixture
def arguments(base: Path, train: Path, val: Path, pool: Path, mined: Path) -> Callable[[str], dict[str, Any]]:
    """The arguments of a run by its name, but for the folder to write to."""
    training = {
        "data": str(train), "model": str(base), "steps": 8, "batch_size": 8, "lr": 1e-3, "checkpoint_every": 3,
        "validation": str(val), "validate_every": 4, "device": "cpu",
    }  # fmt: skip
    by_name: dict[str, dict[str, Any]] = {
        "embed": {"data": str(train), "model": str(base), "shard_rows": 8, "batch_size": 4, "device": "cpu"},
        "mine": {
            "data": str(train), "pool": str(pool), "model": str(base), "k": 5, "quantile": 0.3, "image_block": 8,
            "device": "cpu",
        },
        "gpr-ft": {**training, "method": "gpr-ft"},
        "mcip": {**training, "method": "mcip", "captions": mined, "patch_dropout": 0.25},
        "align": {**training, "unlocked_layers": 1},
        "adapt": {**training, "captions": mined},
    }  # fmt: skip
    return by_name.__getitem__


# The stride is prime to the three moments of a write, so that all three of them occur.
@pytest.mark.parametrize(
    ("name", "stride"), [("embed", 2), ("mine", 4), ("gpr-ft", 4), ("mcip", 2), ("align", 4), ("adapt", 4)]
)
def test_killed_at_every_kind_of_moment(
    name: str, stride: int, arguments: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    stage = "tune" if name in ("gpr-ft", "mcip") else name
    assert run(stage, {**arguments(name), "out": tmp_path / "undisturbed"}) == 0
    kills = run_killed_over_and_over(stage, {**arguments(name), "out": tmp_path / "killed"}, stride)

    assert kills > 3
    expected = contents(tmp_path / "undisturbed")
    assert expected
    assert contents(tmp_path / "killed") == expected


@pytest.mark.parametrize(
    ("stage", "name"), [("tune", "gpr-ft"), ("tune", "mcip"), ("align", "align"), ("adapt", "adapt")]
)
def test_killed_while_it_trains(
    stage: str, name: str, arguments: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    long = {**arguments(name), "steps": 50, "validate_every": 0, "checkpoint_every": 7}
    assert run(stage, {**long, "out": tmp_path / "undisturbed"}) == 0
    killed = tmp_path / "killed"
    run_killed_when(stage, {**long, "out": killed}, lambda: logged_step(killed) >= 20)
    run_killed_when(stage, {**long, "out": killed}, lambda: logged_step(killed) >= 40)
    assert not (killed / "model").exists()
    assert run(stage, {**long, "out": killed}) == 0

    assert contents(killed) == contents(tmp_path / "undisturbed")
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 50]
    assert not (killed / "checkpoints").exists()
