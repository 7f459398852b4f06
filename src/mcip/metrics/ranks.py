"""The ranks of chosen gallery items, without ranking the whole gallery."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.blocks import Array, blocks
from mcip.core.products import multiply

_BLOCK_VALUES = 6_000_000


def block_rows(gallery_size: int) -> int:
    """Queries per block, so that their similarities to the whole gallery take about 24 MB."""
    return max(1, _BLOCK_VALUES // max(1, gallery_size) // 16) * 16


def similarities(queries: Tensor, gallery: Array, out: Tensor | None = None) -> Tensor:
    """Dot products (Q, N), float32, on the queries' device; in the first Q rows of `out` where it is given."""
    in_memory = isinstance(gallery, Tensor) or (gallery.dtype == np.float32 and not isinstance(gallery, np.memmap))
    scores = queries.new_empty(len(queries), len(gallery)) if out is None else out[: len(queries)]
    for start, block in blocks(gallery, max(1, len(gallery)) if in_memory else 16_384, queries.device):
        multiply(queries, block, scores[:, start : start + len(block)])
    return scores


def ranks(scores: Tensor, items: Tensor) -> Tensor:
    """The rank of each item among all N, from 0: how many score higher, or the same at a lower index.

    Args:
        scores: Shape (Q, N), float32.
        items: Columns of `scores`, shape (Q, R), int64; R is at least 1.

    Returns:
        Shape (Q, R), int64.
    """
    targets = scores.gather(1, items)
    found, tied = _positions(scores, targets)
    rows = tied.any(1).nonzero()[:, 0]
    if len(rows):
        keys = _distinct_keys(scores[rows])
        found[rows] = _positions(keys, keys.gather(1, items[rows]))[0]
    return found


def _positions(values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """How many values of the row are above each chosen one, and whether another equals it."""
    if values.device.type == "cpu":
        return _positions_on_cpu(values.numpy(), targets.numpy())
    ascending = values.sort(1).values
    above = torch.searchsorted(ascending, targets, right=True)
    return values.shape[1] - above, above - torch.searchsorted(ascending, targets) > 1


def _positions_on_cpu(values: NDArray[Any], targets: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """The same, row by row: what is below all chosen ones, often nearly everything, need not be sorted."""
    above, equal = np.empty(targets.shape, np.int64), np.empty(targets.shape, np.int64)
    least = targets.min(1)

    def fill(rows: NDArray[np.int64]) -> None:
        for row in rows:
            reached = values[row]
            reached = reached[reached >= least[row]]
            reached.sort()
            right = reached.searchsorted(targets[row], "right")
            above[row] = len(reached) - right
            equal[row] = right - reached.searchsorted(targets[row])

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, np.array_split(np.arange(len(values)), threads)))
    return torch.from_numpy(above), torch.from_numpy(equal > 1)


def _distinct_keys(scores: Tensor) -> Tensor:
    """Integers in the order of the scores, in which of equal scores the lower index is the larger one."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    columns = torch.arange(scores.shape[1], device=scores.device)
    return (ordered.long() << 32) - columns
