"""What the processes of a run have of each other: parts, gathered tensors, decisions of the first, errors."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError, ConfigError, DataError, ProcessError
from mcip.core.processes import Processes, _note_single_launch, processes
from tests.together import run_together


@given(rows=st.integers(0, 50), count=st.integers(1, 8))
def test_parts_are_all_rows_in_order_and_differ_by_one(rows: int, count: int) -> None:
    parts = [Processes(rank, count).part(rows) for rank in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_is_alone() -> None:
    team, values = processes(), torch.ones(2, requires_grad=True)
    assert (team.count, team.first, team.several) == (1, True, False)
    assert team.gather(values) is team.gather_with_gradient(values) is team.sum(values) is values
    assert team.share("a") == "a"
    assert team.gather_json(3) == [3]
    assert team.by_first(lambda: 7) == 7
    assert not torch.distributed.is_initialized()


def test_an_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="RANK and MASTER_ADDR and MASTER_PORT is missing or wrong"):
        processes()


def test_a_launcher_that_starts_one_of_several_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `accelerate launch --cpu --num_processes 2` does."""
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    _note_single_launch.cache_clear()
    assert not processes().several
    assert "give it --multi_gpu, on CPUs too" in " ".join(capsys.readouterr().err.split())
    processes()
    assert not capsys.readouterr().err
    _note_single_launch.cache_clear()
    monkeypatch.delenv("MASTER_PORT")
    processes()
    assert not capsys.readouterr().err


def test_three_processes_share_what_they_have(tmp_path: Path) -> None:
    run_together(3, _share, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    rows = [0.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    for rank, values in enumerate(found):
        assert values.pop("gradient") == [10.0 * row for row, owner in enumerate(rows) if owner == rank]
        assert values == {
            "gathered": rows, "none": [], "sum": 6.0, "largest": 3.0, "shared": {"rank": 0}, "all": ["é0", "é1", "é2"],
            "by_first": 0, "error": "DataError: no rows in process 0", "complete": [False, True],
            "locked": "ArtefactError",
        }  # fmt: skip
    manifest = json.loads((tmp_path / "artefact" / "manifest.json").read_text())
    assert (manifest["complete"], manifest["writer"]) == (True, 0)
    assert list(manifest["files"]) == ["part-0.txt", "part-1.txt", "part-2.txt"]


def _share(folder: Path) -> None:
    team = processes()
    values = torch.full((team.rank + 1,), float(team.rank), requires_grad=True)
    gathered = team.gather_with_gradient(values)
    (gathered * 10 * torch.arange(len(gathered))).sum().backward()
    assert values.grad is not None
    found: dict[str, Any] = {
        "gathered": gathered.tolist(),
        "gradient": values.grad.tolist(),
        "none": team.gather(torch.empty(0, 4, dtype=torch.bool)).tolist(),
        "sum": float(team.sum(torch.tensor(team.rank + 1.0))),
        "largest": float(team.largest(torch.tensor(team.rank + 1.0))),
        "shared": team.share({"rank": team.rank}),
        "all": team.gather_json(f"é{team.rank}"),
        "by_first": team.by_first(lambda: team.rank),
    }
    try:
        team.by_first(_fail)
    except DataError as error:
        found["error"] = f"DataError: {error}"
    with Artefact.begin(folder / "artefact", "things", {"rows": 3}) as artefact:
        before = artefact.complete
        try:
            Artefact.begin(folder / "artefact", "things", {"rows": 4})
        except ArtefactError as error:
            found["locked"] = type(error).__name__
        (folder / "artefact" / f"part-{team.rank}.txt").write_text("rows")
        artefact.finish(writer=team.rank)
    found["complete"] = [before, Artefact.begin(folder / "artefact", "things", {"rows": 3}, announce=False).complete]
    (folder / f"{team.rank}.json").write_text(json.dumps(found))


def _fail() -> None:
    raise DataError(f"no rows in process {os.environ['RANK']}")


def test_the_death_of_one_ends_the_others(tmp_path: Path) -> None:
    began = time.monotonic()
    codes = run_together(3, _die, tmp_path, ends=None)
    assert codes[1] == -signal.SIGKILL
    assert time.monotonic() - began < 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]
    assert (tmp_path / "0").read_text().startswith("Another process of this run ended without a word.")


def _die(folder: Path) -> None:
    team = processes()
    team.barrier()
    if team.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        team.barrier()
    except ProcessError as error:
        (folder / str(team.rank)).write_text(str(error))
