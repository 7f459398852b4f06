"""Trackers: what they get, that a resumed run goes on in theirs, and what is said where one is missing."""

from __future__ import annotations

import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from mcip.core.errors import ConfigError
from mcip.training import CHECKPOINTS, TENSORBOARD, fit
from mcip.training.trackers import RUNS, tracker_names

from .toy import KilledError, Toy, settings, stop_at


class Service:
    """What the three packages would send: per run its metrics by step."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[int, dict[str, float]]] = {}
        self.open: str | None = None

    def start(self, identity: str | None) -> str:
        self.open = identity or f"run-{len(self.runs)}"
        self.runs.setdefault(self.open, {})
        return self.open

    def log(self, values: dict[str, float], step: int) -> None:
        assert self.open is not None
        self.runs[self.open].setdefault(step, {}).update(values)

    def close(self) -> None:
        self.open = None


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Service]:
    """One of the packages, with the part of its API that training uses."""
    service, name = Service(), str(request.param)

    def init(*, project: str, name: str, resume: str, id: str | None = None, dir: str | None = None) -> Any:
        assert (project, resume) == ("mcip", "allow")
        service.start(id or name)
        return module

    def start_run(run_id: str | None = None, run_name: str | None = None) -> Any:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=service.start(run_id)))

    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    functions: dict[str, Any] = {
        "init": init, "log": service.log, "finish": service.close, "start_run": start_run,
        "set_experiment": lambda name: None, "log_metrics": service.log, "end_run": service.close,
    }  # fmt: skip
    for function, value in functions.items():
        setattr(module, function, value)
    monkeypatch.setitem(sys.modules, name, module)
    return name, service


def logged(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result: dict[int, dict[str, float]] = {}
    for line in lines:
        result.setdefault(line.pop("step"), {}).update(line)
    return result


def test_a_tracker_gets_what_is_logged(tracker: tuple[str, Service], tmp_path: Path) -> None:
    name, service = tracker
    fit(Toy(), tmp_path / CHECKPOINTS, settings(log_every=2, report_to=f"{TENSORBOARD}, {name}"))
    ((identity, metrics),) = service.runs.items()
    assert metrics == logged(tmp_path)
    assert json.loads((tmp_path / RUNS).read_text()) == {name: identity}
    assert service.open is None
    assert (tmp_path / TENSORBOARD).is_dir()


def test_a_resumed_run_goes_on_in_the_same_run(tracker: tuple[str, Service], tmp_path: Path) -> None:
    name, service = tracker
    toy = Toy()
    stop_at(toy, 7)
    with pytest.raises(KilledError):
        fit(toy, tmp_path / CHECKPOINTS, settings(checkpoint_every=4, log_every=1, report_to=name))
    assert service.open is None
    fit(Toy(), tmp_path / CHECKPOINTS, settings(checkpoint_every=4, log_every=1, report_to=name))
    assert [sorted(metrics) for metrics in service.runs.values()] == [list(range(1, 11))]


def test_a_run_that_starts_afresh_is_another_one(tracker: tuple[str, Service], tmp_path: Path) -> None:
    name, service = tracker
    for _ in range(2):
        # So short a run leaves no checkpoint to resume from.
        fit(Toy(), tmp_path / CHECKPOINTS, settings(report_to=name, log_every=5))
    assert len(service.runs) == 2


def test_the_weights_do_not_depend_on_it(tracker: tuple[str, Service], tmp_path: Path) -> None:
    name, _ = tracker
    with_it, without = Toy(), Toy()
    fit(with_it, tmp_path / "a" / CHECKPOINTS, settings(report_to=name))
    fit(without, tmp_path / "b" / CHECKPOINTS, settings(report_to="none"))
    assert with_it.first.weight.equal(without.first.weight)
    assert not (tmp_path / "b" / TENSORBOARD).exists()


def test_names_are_checked_before_training() -> None:
    assert tracker_names("tensorboard,tensorboard") == ["tensorboard"]
    assert tracker_names("none") == tracker_names("") == []
    with pytest.raises(ConfigError, match="the trackers are tensorboard, wandb, trackio, mlflow, none"):
        settings(report_to="comet")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        settings(report_to="wandb")
