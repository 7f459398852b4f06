"""Every stage, killed again and again at random moments, ends with the files of a run that nobody disturbed.

Each stage is killed twenty times; MCIP_KILLS sets another number. The moments are drawn between the start and the time
that the undisturbed run took.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.stages.evaluate import evaluate
from tests.retrieval.test_killed import content
from tests.tiny import contents, run, start

KILLS = int(os.environ.get("MCIP_KILLS", "20"))
TRAINING: dict[str, Any] = {"steps": 6, "batch_size": 8, "checkpoint_every": 2, "device": "cpu"}
STAGES = ("embed", "mine", "tune", "align", "adapt", "evaluate", "index", "interpolate", "export", "pretrain", "report")


@pytest.fixture(scope="module")
def results(base: Path, val: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file of `base`."""
    (path,) = evaluate([f"base={base}"], tmp_path_factory.mktemp("results"), data=str(val), device="cpu").paths
    return path


@pytest.fixture
def arguments(train: Path, val: Path, pool: Path, base: Path, mined: Path, results: Path) -> dict[str, dict[str, Any]]:
    common = {"data": str(train), "model": str(base)}
    return {
        "embed": {**common, "shard_rows": 8, "batch_size": 4},
        "mine": {**common, "pool": str(pool), "k": 5, "image_block": 8},
        "tune": {**common, **TRAINING, "captions": mined},
        "align": {**common, **TRAINING, "chunk": 8},
        "adapt": {**common, **TRAINING, "captions": mined},
        "evaluate": {"model": [f"base={base}"], "data": str(val), "device": "cpu"},
        "index": {**common, "shard_rows": 8, "batch_size": 4, "device": "cpu"},
        "interpolate": {"model": str(base), "base": str(base), "alpha": 0.5},
        "export": {"model": str(base), "format": "open_clip"},
        "pretrain": {**TRAINING, "data": str(train), "config": base, "validate_every": 3},
        "report": {"results": [str(results)], "images": str(val), "queries": 2, "neighbours": 3},
    }


@pytest.fixture(scope="module", autouse=True)
def warm(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What processes are forked from has its modules."""
    run("interpolate", {"model": str(base), "base": str(base), "out": tmp_path_factory.mktemp("warm") / "out"})


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(stage: str, arguments: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    disturb(stage, arguments[stage], tmp_path, KILLS)


@pytest.mark.parametrize("stage", ["embed", "mine", "tune", "align", "adapt", "evaluate", "index"])
def test_killed_with_an_unreadable_image(
    stage: str, arguments: dict[str, dict[str, Any]], mined: Path, pool: Path, base: Path, tmp_path: Path
) -> None:
    given = arguments[stage]
    rows = pq.read_table(given["data"])
    images = rows["image"].to_pylist()
    images[3] = {"bytes": b"no image", "path": None}
    number = rows.schema.get_field_index("image")
    damaged = rows.set_column(number, rows.schema.field(number), pa.array(images, rows.schema.field(number).type))
    pq.write_table(damaged, tmp_path / "damaged.parquet")
    changes = {"data": str(tmp_path / "damaged.parquet"), "max_unreadable": 0.1}
    disturb(stage, {**given, **changes}, tmp_path, 1)


def disturb(stage: str, arguments: dict[str, Any], folder: Path, count: int) -> None:
    """Run a stage undisturbed, and in its place again with this many kills: both leave the same."""
    out = folder / "out"
    arguments = {**arguments, "db" if stage == "index" else "out": out}
    began = time.monotonic()
    assert run(stage, arguments) == 0
    duration = time.monotonic() - began
    expected = made(stage, out)
    assert expected
    shutil.rmtree(out)
    moments, kills = random.Random(f"{stage} 37"), 0
    while kills < count:
        process = start(stage, arguments)
        process.join(moments.uniform(0, duration))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            assert made(stage, out) == expected
            shutil.rmtree(out)
    assert run(stage, arguments) == 0
    assert made(stage, out) == expected


def made(stage: str, folder: Path) -> Any:
    """What a stage left: all files of its folder; of an index, whose files have random names, what it answers."""
    return content(folder) if stage == "index" else contents(folder)
