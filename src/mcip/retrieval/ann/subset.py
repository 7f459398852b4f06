"""A subset of the rows of an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowSubset:
    """Rows that a filter leaves, or those that have not been deleted, by their slots.

    Attributes:
        mask: Of all slots, which are in the subset.
        slots: Their numbers, ascending.
        where: The filter, an SQL condition, if there is one.
    """

    mask: NDArray[np.bool_]
    slots: NDArray[np.int64]
    where: str | None = None

    @classmethod
    def of(cls, mask: NDArray[np.bool_], where: str | None = None) -> RowSubset:
        """The slots of a mask."""
        return cls(mask, np.flatnonzero(mask), where)
