"""Exact nearest neighbours by blocked matrix products with a running top-k."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.errors import ConfigError, DataError

Array: TypeAlias = Tensor | NDArray[Any]
Gallery: TypeAlias = Array | Iterable[tuple[int, Array]]

_RUN = 32
# Products of whole tiles are summed in one order, so that equal vectors have equal similarities wherever they stand.
_TILE_ROWS = 16
_GALLERY_BLOCK = {"cpu": 4096}
_OTHER_GALLERY_BLOCK = 16_384


def topk(
    queries: Array, gallery: Gallery, k: int, query_block: int = 1024, gallery_block: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query, by dot product.

    Of equal similarities the one with the lower gallery index comes first. Similarities are equal where their float32
    values are. Equal vectors have equal similarities wherever they stand in the gallery: products are of whole tiles,
    in which a CPU sums every one of them in the same order.

    Beside the result and one block of the gallery, memory holds query_block x gallery_block similarities, however large
    the gallery is.

    Args:
        queries: Shape (Q, D). The search runs on this tensor's device.
        gallery: Shape (N, D), a memory map for instance, or an iterable of (index of the first row, block of rows).
        k: Neighbours per query; N of them where the gallery is smaller.
        query_block: Queries per matrix product.
        gallery_block: Gallery rows per matrix product. If not given, 4,096 on a CPU, whose cache then holds the
            product while it is searched, and 16,384 elsewhere.

    Returns:
        Similarities (Q, k), float32, descending, and gallery indices (Q, k), int64, on the device of the queries.

    Raises:
        ConfigError: k or a block size is below 1.
        DataError: The gallery has another dimension than the queries.

    Example:
        >>> gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
        >>> topk(torch.tensor([[1.0, 0.0]]), gallery, 2)[1].tolist()
        [[1, 2]]
    """
    query_vectors = float32(queries)
    if gallery_block is None:
        gallery_block = _GALLERY_BLOCK.get(query_vectors.device.type, _OTHER_GALLERY_BLOCK)
    if min(k, query_block, gallery_block) < 1:
        raise ConfigError(f"k={k}, query_block={query_block}, gallery_block={gallery_block}: each must be at least 1.")
    query_blocks = query_vectors.split(query_block)
    tiled_queries = [whole_tiles(rows, _TILE_ROWS) for rows in query_blocks]
    buffer = query_vectors.new_empty(0)
    best = [
        (rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device))
        for rows in query_blocks
    ]
    rows_before = 0
    for start, block in blocks(gallery, gallery_block, query_vectors.device):
        if block.ndim != 2 or block.shape[1] != query_vectors.shape[1]:
            raise DataError(
                f"The gallery's block at row {start} has shape {tuple(block.shape)}, but the queries have "
                f"dimension {query_vectors.shape[1]}: both must come from one model."
            )
        tiled_block, later = whole_tiles(block), start >= rows_before
        for number, rows in enumerate(tiled_queries):
            scores = _products(rows, tiled_block, len(block), buffer)[: len(query_blocks[number])]
            best[number] = _improved(*best[number], scores, len(block), start, k, later)
        rows_before = max(rows_before, start + len(block))
    return torch.cat([values for values, _ in best]), torch.cat([indices for _, indices in best])


def whole_tiles(rows: Tensor, size: int = _RUN) -> Tensor:
    """The rows, with rows of zeros behind them up to a multiple of `size`."""
    return rows if len(rows) % size == 0 else torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % size))


def multiply(rows: Tensor, block: Tensor, out: Tensor) -> None:
    """Write rows @ block.T to `out`, every product summed in the same order, wherever its two vectors stand.

    Args:
        rows: Shape (Q, D), float32.
        block: Shape (N, D), float32.
        out: Shape (Q, N).
    """
    tiled, whole = whole_tiles(rows, _TILE_ROWS), len(block) - len(block) % _RUN
    if len(tiled) == len(rows):
        torch.mm(rows, block[:whole].T, out=out[:, :whole])
    else:
        out[:, :whole] = torch.mm(tiled, block[:whole].T)[: len(rows)]
    if whole < len(block):
        out[:, whole:] = torch.mm(tiled, whole_tiles(block[whole:]).T)[: len(rows), : len(block) - whole]


def float32(array: Array, device: torch.device | None = None) -> Tensor:
    """The array as a float32 tensor, on its own device unless another is named; shares memory where it can."""
    if isinstance(array, Tensor):
        return array.detach().to(device=device, dtype=torch.float32)
    values = np.asarray(array, np.float32)
    tensor = torch.from_numpy(
        values if values.flags.writeable and min(values.strides, default=0) >= 0 else values.copy()
    )
    return tensor if device is None else tensor.to(device)


def blocks(gallery: Gallery, size: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Float32 blocks of at most `size` rows on `device`, each with the index of its first row."""
    parts = [(0, gallery)] if isinstance(gallery, Tensor | np.ndarray) else gallery
    for first, part in parts:
        for start in range(0, len(part), size):
            yield first + start, float32(part[start : start + size], device)


def _products(rows: Tensor, block: Tensor, width: int, buffer: Tensor) -> Tensor:
    """Multiply rows by block.T, both of whole tiles, and set the columns beyond `width` to -inf.

    It is done in the buffer, which grows: fresh pages for each block cost as much as the product.
    """
    size = len(rows) * len(block)
    if buffer.numel() < size:
        buffer.resize_(size)
    scores = buffer[:size].view(len(rows), len(block))
    torch.mm(rows, block.T, out=scores)
    scores[:, width:] = -torch.inf
    return scores


def _improved(
    best: Tensor, found: Tensor, scores: Tensor, width: int, start: int, k: int, later: bool
) -> tuple[Tensor, Tensor]:
    """The top k of what was found before and of a block of the gallery.

    Args:
        best: The highest similarities so far, descending.
        found: Their gallery indices.
        scores: Similarities to the block, padded.
        width: How many of its columns are not padding.
        start: The gallery index of its first column.
        k: How many to keep.
        later: Whether all of its rows come after those of the blocks before, so that equal similarities change nothing.
    """
    candidates = _candidates(best[:, -1:], scores, later) if best.shape[1] == k else None
    if candidates is None:
        values, indices = _select(scores, width, k)
        return _ordered(torch.cat([best, values], 1), torch.cat([found, indices + start], 1), k)
    rows, columns = candidates
    if len(rows):
        rows_with, counts = rows.unique_consecutive(return_counts=True)
        line = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[line]
        values = best.new_full((len(counts), int(counts.max())), -torch.inf)
        indices = torch.full_like(values, torch.iinfo(torch.int64).max, dtype=torch.int64)
        values[line, place] = scores[rows, columns]
        indices[line, place] = columns + start
        values, indices = torch.cat([best[rows_with], values], 1), torch.cat([found[rows_with], indices], 1)
        best[rows_with], found[rows_with] = _ordered(values, indices, k)
    return best, found


def _candidates(least: Tensor, scores: Tensor, later: bool) -> tuple[Tensor, Tensor] | None:
    """Rows, in order, and columns of the similarities that reach a row's least one so far; None if that saves no work.

    After some blocks there are few: one pass over the maxima of runs leaves little to look at.
    """
    maxima = _maxima(scores)
    rows, runs = (maxima > least if later else maxima >= least).nonzero(as_tuple=True)
    if len(rows) * _RUN > scores.numel() // 4:
        return None
    columns = runs[:, None] + torch.arange(_RUN, device=scores.device) * maxima.shape[1]
    values = scores[rows[:, None], columns]
    hits = values > least[rows] if later else values >= least[rows]
    lines, picked = hits.nonzero(as_tuple=True)
    return rows[lines], columns[lines, picked]


def _maxima(scores: Tensor) -> Tensor:
    """The maximum of each run. Run j holds the columns j, j + W / 32, ...: vectors are compared, not their elements."""
    return scores.view(len(scores), _RUN, scores.shape[1] // _RUN).amax(1)


def _select(scores: Tensor, width: int, k: int) -> tuple[Tensor, Tensor]:
    """The top k of each row; where equal values compete for the last places, the lower indices win."""
    if k >= width:
        return scores[:, :width].clone(), torch.arange(width, device=scores.device).expand(len(scores), -1)
    if width >= 4 * _RUN * k:
        # No run but the k with the highest maxima can hold one of the top k.
        maxima = _maxima(scores)
        top, runs = maxima.topk(k + 1, dim=1)
        steps = torch.arange(_RUN, device=scores.device)[:, None] * maxima.shape[1]
        columns = (runs[:, None, :k].sort(dim=2).values + steps).flatten(1)
        values, picked = _select(scores.gather(1, columns), columns.shape[1], k)
        indices = columns.gather(1, picked)
    else:
        top, order = scores[:, :width].topk(k + 1, dim=1)
        values, indices = top[:, :k].contiguous(), order[:, :k].contiguous()
    tied = (top[:, k] == top[:, k - 1]).nonzero()[:, 0]
    if len(tied):
        ranked = scores[tied, :width].sort(dim=1, descending=True, stable=True)
        values[tied], indices[tied] = ranked.values[:, :k], ranked.indices[:, :k]
    return values, indices


def _ordered(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k of each row in descending order of value, equal ones in ascending order of index."""
    indices, order = indices.sort(dim=1)
    values, by_value = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices.gather(1, by_value[:, :k])
