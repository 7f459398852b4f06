"""How long the rest of a training takes, said once soon after its start."""

from __future__ import annotations

import time
from typing import Final

from mcip.core.progress import console, duration

# Steps, after the first, by which it is estimated.
_TIMED_STEPS: Final = 5


class Remaining:
    """Times the first steps and prints an estimate; the first of them, which warms up, does not count.

    Attributes:
        validation_seconds: How long a validation took.
    """

    def __init__(self, title: str, steps: range, validate_every: int) -> None:
        """Start.

        Args:
            title: What is trained.
            steps: Those that are to be made.
            validate_every: Steps between validations; 0 where there are none.
        """
        self.title, self.steps, self.validate_every = title, steps, validate_every
        self.validation_seconds = self._timed_from = 0.0

    def step_made(self, done: int) -> None:
        """Note that a step was made; `done` counts all steps of the run."""
        made = done - self.steps.start
        if made == 1:
            self._timed_from = time.perf_counter()
        if made != 1 + _TIMED_STEPS or done == self.steps.stop:
            return
        left = self.steps.stop - done
        seconds = left * (time.perf_counter() - self._timed_from) / _TIMED_STEPS
        if self.validate_every:
            seconds += (left // self.validate_every) * self.validation_seconds
        console.print(f"{self.title}: about {duration(seconds)} for the {left:,} steps left.")
