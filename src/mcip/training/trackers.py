"""Trackers of experiments: programs beside `metrics.jsonl` that a run's metrics are sent to."""

from __future__ import annotations

import importlib
import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from mcip.core.errors import ConfigError
from mcip.core.files import read_json, write_json

TENSORBOARD: Final = "tensorboard"
# Where the runs that the trackers know are remembered, so that a resumed run continues them.
RUNS: Final = "trackers.json"
_PROJECT: Final = "mcip"


class Tracker(Protocol):
    """Takes the metrics of a run, step by step.

    Attributes:
        identity: What the tracker knows the run by.
    """

    identity: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` under `step`."""

    def close(self) -> None:
        """Send what is still here."""


def tracker_names(report_to: str) -> list[str]:
    """The names in a list such as "tensorboard,wandb"; "none" stands for none.

    Raises:
        ConfigError: A name is unknown, or its package is not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    for name in dict.fromkeys(names):
        if name not in (TENSORBOARD, *_TRACKERS):
            known = ", ".join((TENSORBOARD, *_TRACKERS, "none"))
            raise ConfigError(f"report_to names {name!r}: the trackers are {known}.")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"Reporting to {name} needs its package, which is not installed: pip install {name}.")
    return list(dict.fromkeys(names))


def open_tracker(name: str, folder: Path, resumed: bool) -> Tracker:
    """Start a run of a tracker, or continue the one that this folder's run reported to.

    Args:
        name: One of `tracker_names`, but TensorBoard.
        folder: The folder of the run; the tracker's run has its name.
        resumed: Whether training resumes from a checkpoint; else a new run is started.
    """
    runs: dict[str, str] = read_json(folder / RUNS) if (folder / RUNS).exists() else {}
    known = runs.get(name) if resumed else None
    tracker: Tracker = _TRACKERS[name](folder, known)
    write_json(folder / RUNS, runs | {name: tracker.identity})
    return tracker


class _Wandb:
    """A run of Weights & Biases; its own environment variables and `wandb login` say where to."""

    def __init__(self, folder: Path, identity: str | None) -> None:
        self.identity = identity or secrets.token_hex(8)
        self.run = importlib.import_module("wandb").init(
            project=_PROJECT, name=folder.name, id=self.identity, resume="allow", dir=str(folder)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class _Trackio:
    """A run of Trackio, on this machine unless its environment variables name a space."""

    def __init__(self, folder: Path, identity: str | None) -> None:
        self.identity = identity or f"{folder.name}-{secrets.token_hex(4)}"
        self.trackio = importlib.import_module("trackio")
        self.trackio.init(project=_PROJECT, name=self.identity, resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        self.trackio.finish()


class _MLflow:
    """A run of MLflow; MLFLOW_TRACKING_URI says where to."""

    def __init__(self, folder: Path, identity: str | None) -> None:
        self.mlflow = importlib.import_module("mlflow")
        self.mlflow.set_experiment(_PROJECT)
        run = self.mlflow.start_run(run_id=identity, run_name=None if identity else folder.name)
        self.identity = str(run.info.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


_TRACKERS: Final[dict[str, Any]] = {"wandb": _Wandb, "trackio": _Trackio, "mlflow": _MLflow}
