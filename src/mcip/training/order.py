"""Which rows each training step sees: a pure function of the seed and the step, so that a run can resume anywhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError


class EpochOrder:
    """Every epoch visits every row at most once, in an order drawn from (seed, epoch).

    What does not fill a batch at the end of an epoch is left out of it.

    Attributes:
        batch_size: Rows per step; never more than there are rows.
        steps_per_epoch: Whole batches in an epoch.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        """Set the order.

        Raises:
            ConfigError: The batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: a step needs at least 1 row.")
        self.rows = rows
        self.seed = seed
        self.batch_size = min(batch_size, rows)
        self.steps_per_epoch = rows // self.batch_size
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def batch(self, step: int) -> list[int]:
        """The rows of this step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.batch_size
        rows: list[int] = self._permutation(epoch)[start : start + self.batch_size].tolist()
        return rows
