"""What stops a run at its last checkpoint: losses and gradients that are not finite, and losses that leap."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from torch import Tensor

from mcip.core.errors import ConfigError
from mcip.core.files import write_json
from mcip.core.processes import processes
from mcip.core.shards import is_sharded

REPORT: Final = "stopped.json"
# Means of the loss over `log_every` steps by which a leap is judged, and steps that a report lists.
_MEANS, _LISTED = 10, 50


class Health:
    """Keeps the losses and gradient norms of the latest steps, and stops the run where they are those of a broken one.

    Reading a value from a GPU makes the host wait, so what `add` gets stays on the device until `check` or `means`.

    A leap is a mean loss over `log_every` steps that is more than `max_loss_ratio` times the median of the ten means
    before it, and larger than the run's first.
    """

    def __init__(self, folder: Path, groups: Sequence[str], max_loss_ratio: float, means: Sequence[float]) -> None:
        """Start, or resume.

        Args:
            folder: Where the report is written.
            groups: The names of the groups of parameters.
            max_loss_ratio: See above; 0 lets every finite loss pass.
            means: The mean losses that the run has logged before.

        Raises:
            ConfigError: `max_loss_ratio` is out of range.
        """
        if max_loss_ratio and not max_loss_ratio > 1:
            raise ConfigError(f"max_loss_ratio is {max_loss_ratio}: it is above 1, or 0 to let every loss pass.")
        self.report, self.groups, self.max_loss_ratio = folder / REPORT, list(groups), max_loss_ratio
        if processes().first:
            self.report.unlink(missing_ok=True)
        self._first = means[0] if means else math.inf
        self._means = deque(means, _MEANS)
        self._steps: deque[dict[str, Any]] = deque(maxlen=_LISTED)
        self._unread: list[tuple[int, dict[str, Tensor], Tensor | None]] = []
        self._recent: list[dict[str, float]] = []

    @property
    def steps(self) -> int:
        """How many steps there were since the last call of `means`."""
        return len(self._unread) + len(self._recent)

    def add(self, step: int, losses: Mapping[str, Tensor], norms: Tensor | None) -> None:
        """Note a step.

        Args:
            step: Its number, counted from 1.
            losses: Scalars by name, `loss` among them.
            norms: The gradient norm of each group before clipping; None where gradients that are not finite are no
                fault, as with the loss scale of fp16.
        """
        self._unread.append((step, {name: loss.detach() for name, loss in losses.items()}, norms))

    def check(self, checkpoint: int | None) -> None:
        """Read what was noted.

        Args:
            checkpoint: The step of the last checkpoint, if there is one.

        Raises:
            ConfigError: A loss or a gradient is not finite; the report is written.
        """
        for step, losses, norms in self._unread:
            values = {name: float(loss) for name, loss in losses.items()}
            by_group = {} if norms is None else dict(zip(self.groups, norms.tolist(), strict=True))
            self._recent.append(values)
            self._steps.append({"step": step, **values, "gradient_norms": by_group})
            if not math.isfinite(values["loss"]):
                self._stop(step, f"The loss is {values['loss']} at step {step}", checkpoint)
            for name, norm in by_group.items():
                if not math.isfinite(norm):
                    self._stop(step, f"The gradient of the {name} is {norm} at step {step}", checkpoint)
        self._unread.clear()

    def means(self, step: int, checkpoint: int | None) -> dict[str, float]:
        """The means of the losses since the last call, by name.

        Raises:
            ConfigError: A value is not finite, or the loss leapt; the report is written.
        """
        self.check(checkpoint)
        means = {name: statistics.fmean(losses[name] for losses in self._recent) for name in self._recent[0]}
        self._recent.clear()
        loss = means["loss"]
        if self.max_loss_ratio and len(self._means) == _MEANS:
            usual = statistics.median(self._means)
            if loss > self.max_loss_ratio * usual and loss > self._first:
                reason = f"The loss leapt to {loss:.4g} before step {step}, from {usual:.4g}"
                self._stop(step, reason, checkpoint)
        if not self._means:
            self._first = loss
        self._means.append(loss)
        return means

    def _stop(self, step: int, reason: str, checkpoint: int | None) -> NoReturn:
        kept = f"the last checkpoint, of step {checkpoint}, is kept" if checkpoint else "there is no checkpoint yet"
        remedies = [
            "Lower the learning rate (--lr), or warm up longer (--warmup), in another folder: started again with the "
            "same parameters, the run comes to the same step again.",
            "Use --precision fp32, if it was another.",
            "Look at the images and labels that the run trains on.",
        ]
        if math.isfinite(self._steps[-1]["loss"]):
            remedies.append("If the loss may leap, raise --max-loss-ratio, or give it 0.")
        report = {
            "reason": f"{reason}; {kept}.",
            "step": step,
            "checkpoint_step": checkpoint,
            "what_to_do": remedies,
            "mean_losses_before": _finite([*self._means]),
            "steps": _finite([*self._steps]),
        }
        if processes().first:
            write_json(self.report, report)
        raise ConfigError(
            f"{reason}; {kept}. Lower the learning rate, or use --precision fp32. {self.report} holds the losses and "
            "gradient norms of the steps before."
        )


def stack_norms(norms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient norms of all groups as one tensor, and 1 where one of them is not finite, else 0.

    The second is what a fused optimiser takes as `found_inf`: it leaves the weights and its state as they are.
    """
    stacked = torch.stack([_whole(norm).float() for norm in norms])
    return stacked, (~stacked.isfinite().all()).float()


def _whole(norm: Any) -> Tensor:
    """A norm over all processes where its weights are in shards."""
    tensor: Tensor = norm.full_tensor() if is_sharded(norm) else norm
    return tensor


def _finite(value: Any) -> Any:
    """The same with numbers that JSON does not have as texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value
