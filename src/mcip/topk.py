"""Exact nearest neighbours by blocked matrix products with a running top-k."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.errors import ConfigError, DataError

Array: TypeAlias = Tensor | NDArray[Any]
Gallery: TypeAlias = Array | Iterable[tuple[int, Array]]

_RUN = 32


def topk(
    queries: Array, gallery: Gallery, k: int, query_block: int = 1024, gallery_block: int = 16_384
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query, by dot product.

    Of equal similarities the one with the lower gallery index comes first. Beside the result and one block of the
    gallery, memory holds query_block x gallery_block similarities, however large the gallery is.

    Args:
        queries: Shape (Q, D). The search runs on this tensor's device.
        gallery: Shape (N, D), a memory map for instance, or an iterable of (index of the first row, block of rows).
        k: Neighbours per query; N of them where the gallery is smaller.
        query_block: Queries per matrix product.
        gallery_block: Gallery rows per matrix product.

    Returns:
        Similarities (Q, k), float32, descending, and gallery indices (Q, k), int64, on the device of the queries.

    Raises:
        ConfigError: k or a block size is below 1.
        DataError: The gallery has another dimension than the queries.
    """
    if min(k, query_block, gallery_block) < 1:
        raise ConfigError(f"k={k}, query_block={query_block}, gallery_block={gallery_block}: each must be at least 1.")
    wanted = float32(queries)
    query_blocks = [wanted[start : start + query_block] for start in range(0, max(1, len(wanted)), query_block)]
    scores = wanted.new_empty(0)
    best = wanted.new_empty(len(wanted), 0)
    found = torch.empty(len(wanted), 0, dtype=torch.int64, device=wanted.device)
    for start, block in blocks(gallery, gallery_block, wanted.device):
        if block.ndim != 2 or block.shape[1] != wanted.shape[1]:
            raise DataError(
                f"The gallery's block at row {start} has shape {tuple(block.shape)}, but the queries have "
                f"dimension {wanted.shape[1]}: both must come from one model."
            )
        parts = [_select(_products(rows, block, scores), k) for rows in query_blocks]
        values = torch.cat([best, torch.cat([part[0] for part in parts])], 1)
        indices = torch.cat([found, torch.cat([part[1] for part in parts]) + start], 1)
        best, found = _ordered(values, indices, k)
    return best, found


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


def _products(rows: Tensor, block: Tensor, buffer: Tensor) -> Tensor:
    """Multiply rows by block.T in the buffer, which grows: fresh pages for each block cost as much as the product."""
    size = len(rows) * len(block)
    if buffer.numel() < size:
        buffer.resize_(size)
    return torch.mm(rows, block.T, out=buffer[:size].view(len(rows), len(block)))


def _select(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The top k of each row; where equal values compete for the last places, the lower indices win."""
    width = similarities.shape[1]
    if k >= width:
        return similarities.clone(), torch.arange(width, device=similarities.device).expand_as(similarities)
    if width >= 4 * _RUN * k:
        return _select_by_runs(similarities, k)
    values, indices = similarities.topk(k + 1, dim=1)
    tied = (values[:, k] == values[:, k - 1]).nonzero()[:, 0]
    values, indices = values[:, :k].contiguous(), indices[:, :k].contiguous()
    if len(tied):
        ranked = similarities[tied].sort(dim=1, descending=True, stable=True)
        values[tied], indices[tied] = ranked.values[:, :k], ranked.indices[:, :k]
    return values, indices


def _select_by_runs(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same by way of the k runs of columns with the highest maxima: no other run can hold one of the top k."""
    rows, width = similarities.shape
    whole = width - width % _RUN
    runs = _select(similarities[:, :whole].reshape(rows, -1, _RUN).amax(2), k)[1].sort(dim=1).values
    columns = (runs[:, :, None] * _RUN + torch.arange(_RUN, device=runs.device)).flatten(1)
    rest = torch.arange(whole, width, device=runs.device).expand(rows, -1)
    columns = torch.cat([columns, rest], 1)
    values, picked = _select(similarities.gather(1, columns), k)
    return values, columns.gather(1, picked)


def _ordered(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k of each row by falling value, then by rising index."""
    indices, order = indices.sort(dim=1)
    values, by_value = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices.gather(1, by_value[:, :k])
