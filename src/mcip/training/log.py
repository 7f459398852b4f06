"""Training metrics as JSON lines, for TensorBoard and for other trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from mcip.core.files import atomic_write, explain_full_disk
from mcip.core.processes import processes
from mcip.training.trackers import TENSORBOARD, Tracker, open_tracker, tracker_names

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl` and reports to trackers; what lies after the step it resumes from is dropped.

    Trackers other than TensorBoard continue their run; what they have of later steps, they keep as they see fit. Of
    several processes the first writes.
    """

    def __init__(self, folder: Path, step: int, report_to: str = TENSORBOARD) -> None:
        """Open the log.

        Args:
            folder: Where the files lie.
            step: The step of the checkpoint that training resumes from; 0 where it starts, and everything is dropped.
            report_to: The trackers, as `tracker_names` takes them.

        Raises:
            ConfigError: A tracker is unknown or not installed.
        """
        names = tracker_names(report_to)
        self.path = folder / METRICS
        self.writes = processes().first
        self._kept: list[dict[str, float]] = []
        if not self.writes:
            return
        kept = [line for line in self._lines() if 0 < step >= json.loads(line)["step"]]
        self._kept = [json.loads(line) for line in kept]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        with explain_full_disk(self.path):
            self.trackers: list[Tracker] = [
                _TensorBoard(folder, step) if name == TENSORBOARD else open_tracker(name, folder, step > 0)
                for name in names
            ]

    def earlier(self, name: str) -> list[float]:
        """The values of this name that were recorded up to the step it resumes from."""
        return [float(values[name]) for values in self._kept if name in values]

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A killed run may leave half a line at the end.
        return [line for line in lines if line.endswith("}\n")]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record `values` under `step`.

        Raises:
            ArtefactError: The disk is full.
        """
        if not self.writes:
            return
        with explain_full_disk(self.path):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            for tracker in self.trackers:
                tracker.log(step, values)

    def close(self) -> None:
        """Flush what the trackers have buffered."""
        if not self.writes:
            return
        with explain_full_disk(self.path):
            for tracker in self.trackers:
                tracker.close()


class _TensorBoard:
    """Files of TensorBoard in the folder of the run."""

    def __init__(self, folder: Path, step: int) -> None:
        self.identity = TENSORBOARD
        self.writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1 if step else 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()
