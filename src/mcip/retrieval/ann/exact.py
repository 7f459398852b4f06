"""Exact search: products with every vector in half precision, and the best of them once more in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.topk import topk

# Candidates beyond k that are rescored: half precision moves a cosine by about 2e-4.
_SPARE = 32
# Up to this many queries, one pass over the half-precision vectors each is quicker than a conversion of all of them.
_FEW = 8
_BLOCK = 16_384


def exact_search(
    vectors: NDArray[np.float16], queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k vectors with the largest dot products, exactly.

    Of equal products the vector with the lower number comes first.

    Args:
        vectors: Shape (N, D), a memory map for instance.
        queries: Shape (Q, D).
        k: Vectors per query.
        among: Numbers of the vectors to search, rising; all if not given.

    Returns:
        Products (Q, m), descending, and the numbers of the vectors, where m is k, or how many there are if fewer.
    """
    count = len(vectors) if among is None else len(among)
    if count == 0:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if len(queries) > _FEW:
        best, found = topk(np.ascontiguousarray(queries), _blocks(vectors, among), k)
        numbers = found.numpy()
        return best.numpy(), numbers if among is None else among[numbers]
    if among is not None and count * 4 < len(vectors):
        scores, found_among = exact_search(vectors[among], queries, k)
        return scores, among[found_among]
    left_out = None
    if count < len(vectors):
        left_out = torch.ones(len(vectors), dtype=torch.bool)
        left_out[torch.from_numpy(among)] = False
    rows = [_one(vectors, query, k, count, left_out) for query in queries]
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def rescore(
    vectors: NDArray[np.floating[Any]], query: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of some candidates by their products in single precision."""
    candidates = np.sort(candidates)
    scores = vectors[candidates].astype(np.float32) @ query
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], candidates[order]


def as_tensor(vectors: NDArray[np.float16]) -> Tensor:
    """The vectors as a tensor that shares their memory."""
    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())


def _blocks(vectors: NDArray[np.float16], among: NDArray[np.int64] | None) -> Iterator[tuple[int, Tensor]]:
    """The vectors to search, block by block, each with its place among them."""
    count = len(vectors) if among is None else len(among)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        yield start, as_tensor(vectors[start:stop] if among is None else vectors[among[start:stop]])


def _one(
    vectors: NDArray[np.float16], query: NDArray[np.float32], k: int, count: int, left_out: Tensor | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    products = torch.mv(as_tensor(vectors), torch.from_numpy(query).half()).float()
    if left_out is not None:
        products.masked_fill_(left_out, -torch.inf)
    candidates = products.topk(min(k + _SPARE, count)).indices.numpy()
    return rescore(vectors, query, candidates, min(k, count))
