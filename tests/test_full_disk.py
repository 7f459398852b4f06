"""Stages on a disk that fills up: an error that says so, and the same command resumes when there is room again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from mcip.stages.embed import embed
from mcip.stages.export import export
from tests.limits import with_small_files
from tests.tiny import contents

TUNING: dict[str, Any] = {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "device": "cpu"}


@pytest.fixture
def arguments(train: Path, pool: Path, base: Path, mined: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    common = {"data": str(train), "model": str(base)}
    return {
        "embed": ("embed", common),
        "mine": ("mine", {**common, "pool": str(pool), "k": 5}),
        "gpr-ft": ("tune", {**common, **TUNING, "method": "gpr-ft"}),
        "mcip": ("tune", {**common, **TUNING, "captions": mined}),
        "align": ("align", {**common, **TUNING}),
    }


# Manifests and tables of captions fit into the first limit, vectors do not; weights do not fit into the second.
@pytest.mark.parametrize(
    ("name", "largest_file"),
    [("embed", 2_000), ("mine", 2_000), ("gpr-ft", 500_000), ("mcip", 500_000), ("align", 500_000)],
)
def test_a_stage_says_so_and_goes_on_when_there_is_room(
    name: str, largest_file: int, arguments: dict[str, tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    stage, parameters = arguments[name]
    run = getattr(importlib.import_module(f"mcip.stages.{stage}"), stage)
    run(**parameters, out=tmp_path / "whole")
    start = "fork" if name in ("embed", "mine") else "forkserver"
    message = with_small_files(largest_file, run, start=start, **parameters, out=tmp_path / "cramped")
    assert message.startswith(f"The disk is full: could not write {tmp_path / 'cramped'}")
    assert message.endswith("run the same command again.")
    assert not list((tmp_path / "cramped").rglob(".*.part"))
    run(**parameters, out=tmp_path / "cramped")
    assert contents(tmp_path / "cramped") == contents(tmp_path / "whole")


def test_weights_that_do_not_fit_are_not_exported(base: Path, tmp_path: Path) -> None:
    message = with_small_files(500_000, export, str(base), tmp_path / "model.pth")
    assert message.startswith("The disk is full: could not write")
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_does_not_fit_into_the_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("caption\n" + f"{'a red mug ' * 50}\n" * 400)
    pool = tmp_path / "pool.csv"
    message = with_small_files(50_000, embed, str(pool), tmp_path / "out", "toyshop", what="captions")
    assert message.startswith(f"cannot read {pool} (into the cache")
    assert "File too large" in message
