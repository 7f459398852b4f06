"""Training metrics as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard files; what lies after the step it goes on from is dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
        self.path.write_text("".join(kept), encoding="utf-8")
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A killed run may leave half a line at the end.
        return [line for line in lines if line.endswith("}\n")]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record `values` under `step`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what TensorBoard has buffered."""
        self.writer.close()
