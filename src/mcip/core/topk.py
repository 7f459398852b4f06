"""Exact nearest neighbours by blocked matrix products with a running top-k."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mcip.core.blocks import Array, Gallery, blocks, float32
from mcip.core.errors import ConfigError, DataError
from mcip.core.half_selection import HalfSelection, can_select
from mcip.core.products import Float32Search
from mcip.core.running_topk import RunningTopK

_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_QUERY_BLOCK = {"cpu": 1024}
_OTHER_QUERY_BLOCK = 32_768
_GALLERY_BLOCK = {"cpu": 4096}
_OTHER_GALLERY_BLOCK = 16_384


def topk(
    queries: Array,
    gallery: Gallery,
    k: int,
    query_block: int | None = None,
    gallery_block: int | None = None,
    select: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query, by dot product.

    Of equal similarities the one with the lower gallery index comes first. Similarities are equal where their float32
    values are. Equal vectors have equal similarities wherever they stand in the gallery: float32 products are of whole
    tiles, in which a CPU sums every one of them in the same order.

    Where products in half precision select, float32 decides: what is within the error bound of half precision of a
    query's k-th best similarity so far is computed again in float32, so that nothing is lost. See `HalfSelection`.

    Beside the result and two blocks of the gallery, memory holds query_block x gallery_block similarities, however
    large the gallery is. A gallery in host memory is copied to a GPU while that computes.

    Args:
        queries: Shape (Q, D). The search runs on this tensor's device.
        gallery: Shape (N, D), a memory map for instance, or an iterable of (index of the first row, block of rows).
        k: Neighbours per query; N of them where the gallery is smaller.
        query_block: Queries per matrix product. If not given, 1,024 on a CPU and 32,768 elsewhere.
        gallery_block: Gallery rows per matrix product. If not given, 4,096 on a CPU, whose cache then holds the
            product while it is searched, and 16,384 elsewhere.
        select: The precision of the products that select: float32, float16 or bfloat16. If not given, float16 on a
            GPU where k is at most 128, float32 elsewhere.

    Returns:
        Similarities (Q, k), float32, descending, and gallery indices (Q, k), int64, on the device of the queries.

    Raises:
        ConfigError: k or a block size is below 1, or `select` is another dtype.
        DataError: The gallery has another dimension than the queries.

    Example:
        >>> gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
        >>> topk(torch.tensor([[1.0, 0.0]]), gallery, 2)[1].tolist()
        [[1, 2]]
    """
    query_vectors = float32(queries)
    device = query_vectors.device
    query_block = query_block if query_block is not None else _QUERY_BLOCK.get(device.type, _OTHER_QUERY_BLOCK)
    gallery_block = (
        gallery_block if gallery_block is not None else _GALLERY_BLOCK.get(device.type, _OTHER_GALLERY_BLOCK)
    )
    if min(k, query_block, gallery_block) < 1:
        raise ConfigError(f"k={k}, query_block={query_block}, gallery_block={gallery_block}: each must be at least 1.")
    if select is None:
        select = torch.float16 if can_select(device, k) else torch.float32
    if select not in _PRECISIONS:
        raise ConfigError(f"select={select}: it must be one of {', '.join(map(str, _PRECISIONS))}.")
    kind = Float32Search if select == torch.float32 else partial(HalfSelection, dtype=select)
    searches = [kind(rows, RunningTopK(len(rows), k, device)) for rows in query_vectors.split(query_block)]
    buffer = query_vectors.new_empty(0)
    for start, block in blocks(gallery, gallery_block, device):
        if block.ndim != 2 or block.shape[1] != query_vectors.shape[1]:
            raise DataError(
                f"The gallery's block at row {start} has shape {tuple(block.shape)}, but the queries have "
                f"dimension {query_vectors.shape[1]}: both must come from one model."
            )
        prepared: Any = searches[0].prepare(block)
        for search in searches:
            search.best.begin_block(start, len(block))
            search.add_block(prepared, start, buffer)
    for search in searches:
        search.best.settle()
    return torch.cat([search.best.values for search in searches]), torch.cat([s.best.indices for s in searches])
