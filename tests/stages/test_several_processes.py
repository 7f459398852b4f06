"""embed, mine and evaluate in two processes leave what one process leaves, to the byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip.cli.main import main
from mcip.core.artefacts import MANIFEST
from mcip.core.files import read_json
from mcip.embeddings.store import Embeddings
from tests.together import run_together


def run(count: int, *commands: Sequence[object]) -> None:
    """Run some commands, one after the other, in processes that share them."""
    run_together(count, run_all, [[str(word) for word in command] for command in commands])


def run_all(commands: Sequence[list[str]]) -> None:
    for command in commands:
        assert main(command) == 0


def commands(out: Path, base: Path, train: Path, pool: Path) -> list[list[object]]:
    shared = ["--device", "cpu"]
    return [
        ["embed", train, out / "images", base, "--shard-rows", 5, "--batch-size", 3, *shared],
        ["embed", pool, out / "captions", base, "--what", "captions", "--shard-rows", 3, "--batch-size", 2, *shared],
        ["mine", train, pool, out / "mined", base, "--k", 3, "--image-block", 3, "--threshold=-0.5", *shared],
        ["evaluate", "--model", f"base={base}", "--out", out / "results", "--data", train, *shared],
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.suffix not in (".json", ".lock")
    }


def results(path: Path, folder: Path) -> Any:
    return json.loads(path.read_text().replace(str(folder), "FOLDER"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, base: Path, train: Path, pool: Path) -> Path:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("one")
    run(1, *commands(out, base, train, pool))
    return out


def test_two_processes_leave_the_same(one: Path, tmp_path: Path, base: Path, train: Path, pool: Path) -> None:
    run(2, *commands(tmp_path, base, train, pool))
    assert files(tmp_path) == files(one)
    assert len(files(one)) > 10
    for name in ("images", "captions", "mined"):
        manifests = [read_json(folder / name / MANIFEST) for folder in (one, tmp_path)]
        assert manifests[0] == manifests[1]
    assert results(tmp_path / "results/base.json", tmp_path) == results(one / "results/base.json", one)


def test_a_run_of_two_processes_resumes_in_one(one: Path, tmp_path: Path, base: Path, train: Path, pool: Path) -> None:
    first = commands(tmp_path, base, train, pool)[0]
    run(2, first)
    folder = tmp_path / "images"
    # As a run leaves it that was killed before its second shard was whole.
    manifest = read_json(folder / MANIFEST)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "complete": False}))
    kept = (folder / "vectors-00000.npy").stat().st_mtime_ns
    (folder / "shard-00001.json").unlink()
    run(1, first)
    assert (folder / "vectors-00000.npy").stat().st_mtime_ns == kept
    assert files(folder) == files(one / "images")
    np.testing.assert_array_equal(Embeddings(folder).array(), Embeddings(one / "images").array())
