"""Stages on a disk that fills up: an error that says so, and the same command resumes when there is room again."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from mcip.stages.embed import embed
from mcip.stages.evaluate import evaluate
from tests.limits import with_small_files
from tests.retrieval.test_killed import content
from tests.tiny import contents

TUNING: dict[str, Any] = {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def results(base: Path, val: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file of `base`."""
    (path,) = evaluate([f"base={base}"], tmp_path_factory.mktemp("results"), data=str(val), device="cpu").paths
    return path


@pytest.fixture
def arguments(
    train: Path, val: Path, pool: Path, base: Path, mined: Path, results: Path
) -> dict[str, tuple[str, dict[str, Any]]]:
    common = {"data": str(train), "model": str(base)}
    page = {"images": str(val), "queries": 2, "neighbours": 3}
    return {
        "embed": ("embed", common),
        "mine": ("mine", {**common, "pool": str(pool), "k": 5}),
        "gpr-ft": ("tune", {**common, **TUNING, "method": "gpr-ft"}),
        "mcip": ("tune", {**common, **TUNING, "captions": mined}),
        "align": ("align", {**common, **TUNING}),
        "adapt": ("adapt", {**common, **TUNING, "captions": mined}),
        "evaluate": ("evaluate", {"model": [f"base={base}"], "data": str(val), "device": "cpu"}),
        "index": ("index", {**common, "shard_rows": 8, "device": "cpu"}),
        "graph": ("index", {**common, "ann": "graph", "device": "cpu"}),
        "interpolate": ("interpolate", {"model": str(base), "base": str(base), "alpha": 0.5}),
        "export": ("export", {"model": str(base), "format": "open_clip"}),
        "pretrain": ("pretrain", {**TUNING, "data": str(train), "config": base}),
        "report": ("report", {"results": [str(results)], **page}),
    }


# The files that do not fit: vectors; the checkpoints of a training, or its model alone; results; rows of an index, or
# the last bytes of them, its vectors, its graph; the page of a report.
@pytest.mark.parametrize(
    ("name", "largest_file"),
    [
        ("embed", 2_000), ("mine", 2_000), ("gpr-ft", 500_000), ("mcip", 500_000), ("align", 500_000),
        ("adapt", 1_500), ("adapt", 4_000), ("adapt", 100_000), ("pretrain", 500_000),
        ("evaluate", 500), ("evaluate", 3_000), ("index", 1_000), ("index", 6_000), ("index", 8_000), ("graph", 8_000),
        ("interpolate", 500_000), ("export", 500_000), ("report", 500), ("report", 20_000), ("report", 100_000),
    ],
)  # fmt: skip
def test_a_stage_says_so_and_goes_on_when_there_is_room(
    name: str, largest_file: int, arguments: dict[str, tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    stage, parameters = arguments[name]
    run = getattr(importlib.import_module(f"mcip.stages.{stage}"), stage)
    out = tmp_path / "out"
    parameters = {**parameters, "db" if stage == "index" else "out": out}
    made = content if stage == "index" else contents
    run(**parameters)
    expected = made(out)
    for path in tmp_path.glob("out*"):
        shutil.rmtree(path)
    message = with_small_files(largest_file, run, start="forkserver", **parameters)
    assert message.startswith(f"The disk is full: could not write {tmp_path}")
    assert message.endswith("run the same command again.")
    assert not list(tmp_path.rglob(".*.part"))
    run(**parameters)
    assert made(out) == expected


def test_a_table_that_does_not_fit_into_the_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("caption\n" + f"{'a red mug ' * 50}\n" * 400)
    pool = tmp_path / "pool.csv"
    message = with_small_files(50_000, embed, str(pool), tmp_path / "out", "toyshop", what="captions")
    assert message.startswith(f"cannot read {pool} (into the cache")
    assert "File too large" in message
