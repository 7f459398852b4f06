"""Training metrics as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from mcip.core.files import atomic_write, explain_full_disk
from mcip.core.processes import processes

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard files; what lies after the step it resumes from is dropped.

    Of several processes the first writes.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Open the log.

        Args:
            folder: Where the files lie.
            step: The step of the checkpoint that training resumes from; 0 where it starts, and everything is dropped.
        """
        self.path = folder / METRICS
        self.writes = processes().first
        if not self.writes:
            return
        kept = [line for line in self._lines() if 0 < step >= json.loads(line)["step"]]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        with explain_full_disk(self.path):
            self.writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1 if step else 0)

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
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what TensorBoard has buffered."""
        if not self.writes:
            return
        with explain_full_disk(self.path):
            self.writer.close()
