"""The ranks of chosen gallery items, without ranking the whole gallery."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mcip.topk import Array, blocks

_BLOCK_VALUES = 6_000_000


def block_rows(gallery_size: int) -> int:
    """Queries per block, so that their similarities to the whole gallery take about 24 MB."""
    return max(16, _BLOCK_VALUES // max(1, gallery_size))


def similarities(queries: Tensor, gallery: Array) -> Tensor:
    """Dot products (Q, N), float32, on the queries' device."""
    in_memory = isinstance(gallery, Tensor) or (gallery.dtype == np.float32 and not isinstance(gallery, np.memmap))
    out = queries.new_empty(len(queries), len(gallery))
    for start, block in blocks(gallery, max(1, len(gallery)) if in_memory else 16_384, queries.device):
        torch.mm(queries, block.T, out=out[:, start : start + len(block)])
    return out


def ranks(scores: Tensor, items: Tensor) -> Tensor:
    """The rank of each item among all N, from 0: how many score higher, or the same at a lower index.

    Args:
        scores: Shape (Q, N), float32.
        items: Columns of `scores`, shape (Q, R), int64.

    Returns:
        Shape (Q, R), int64.
    """
    chosen = scores.gather(1, items)
    found, tied = _positions(scores, chosen)
    rows = tied.any(1).nonzero()[:, 0]
    if len(rows):
        keys = _distinct_keys(scores[rows])
        found[rows] = _positions(keys, keys.gather(1, items[rows]))[0]
    return found


def _positions(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many values of the row are above each chosen one, and whether another equals it."""
    ascending = _sorted(values)
    above = torch.searchsorted(ascending, chosen, right=True)
    return values.shape[1] - above, above - torch.searchsorted(ascending, chosen) > 1


def _sorted(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort(1).values
    # NumPy's sort is vectorised and takes a tenth of the time of torch's, which also returns the order.
    out = values.numpy().copy()
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda rows: rows.sort(axis=1), np.array_split(out, threads)))
    return torch.from_numpy(out)


def _distinct_keys(scores: Tensor) -> Tensor:
    """Integers in the order of the scores, in which of equal scores the lower index is the larger one."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    columns = torch.arange(scores.shape[1], device=scores.device)
    return (ordered.long() << 32) - columns
