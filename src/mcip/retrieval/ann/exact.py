"""Exact search: products with every vector in half precision, and the best of them once more in single precision.

The products are made by PyTorch where it is imported already, otherwise by NumPy, which takes longer for large indexes
but less than importing PyTorch does. The results are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Dot products, float32, in descending order, and the numbers of their vectors, int64: those of one query (m,) or of
# several (Q, m).
Ranked: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]

# What half precision may take from or add to the product of two vectors of unit length: 2^-11 each for rounding the
# query and the result.
_HALF_ERROR: Final = 1e-3
# Likewise for a matrix product in single precision.
_SINGLE_ERROR: Final = 5e-6
# Candidates beyond k that a matrix product of many queries is asked for.
_SPARE: Final = 32
# Up to this many queries, one pass over the half-precision vectors each is quicker than a conversion of all of them.
_FEW: Final = 8
_BLOCK: Final = 16_384
# Vectors of one block that stay in the processor's cache while they are converted and multiplied.
_CACHED: Final = 1024
# The sign, and the 28 lowest bits.
_SIGN_AND_REST: Final = np.int32(-(2**31) + 2**28 - 1)


def exact_search(
    vectors: NDArray[np.float16], queries: NDArray[np.float32], k: int, subset: NDArray[np.int64] | None = None
) -> Ranked:
    """The k vectors with the largest dot products, exactly.

    Of equal products the vector with the lower number comes first. The first of the results are the same for every k.

    Args:
        vectors: Shape (N, D), of unit length; a memory map for instance.
        queries: Shape (Q, D).
        k: Vectors per query.
        subset: Numbers of the vectors to search, ascending; all if not given.

    Returns:
        Products (Q, m), float32, in descending order, and the numbers of the vectors, int64, where m is k, or how many
        there are if fewer.
    """
    count = len(vectors) if subset is None else len(subset)
    k = min(k, count)
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if subset is not None and count * 4 < len(vectors) and len(queries) <= _FEW:
        scores, places = exact_search(vectors[subset], queries, k)
        return scores, subset[places]
    if len(queries) > 1 and "torch" not in sys.modules:
        rows = _together(vectors, queries, k, subset)
    elif len(queries) > _FEW:
        rows = _many(vectors, queries, k, subset)
    else:
        rows = [_one(vectors, query, k, subset) for query in queries]
    return np.stack([scores for scores, _ in rows]), np.stack([numbers for _, numbers in rows])


def rescore(
    vectors: NDArray[np.floating[Any]], query: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> Ranked:
    """The k best of some candidates, given by their numbers, by their products in single precision."""
    if len(candidates) <= _BLOCK:
        scores = products(vectors.take(candidates, 0), query)
    else:
        blocks = (candidates[start : start + _BLOCK] for start in range(0, len(candidates), _BLOCK))
        scores = np.concatenate([products(vectors[block], query) for block in blocks])
    order = ranking(scores, candidates)[:k]
    return scores[order], candidates[order]


def products(vectors: NDArray[np.floating[Any]], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dot products of vectors (n, D) with a query (D,), each rounded the same whichever others are beside it."""
    # A product of matrices would round a row by how many there are.
    result: NDArray[np.float32] = np.einsum("nd,d->n", _single(vectors), query, dtype=np.float32)
    return result


def _single(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Vectors in single precision: for finite ones in half precision what `astype` returns, in a third of the time.

    The bits of a half are moved to where a single has them; the exponents then differ by 112.
    """
    if vectors.dtype != np.float16:
        return vectors.astype(np.float32)
    bits = np.ascontiguousarray(vectors).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_AND_REST
    single = bits.view(np.float32)
    single *= np.float32(2.0**112)
    return single


def ranking(scores: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of descending scores, and of ascending numbers where scores are equal."""
    return np.lexsort((numbers, -scores))


def _one(vectors: NDArray[np.float16], query: NDArray[np.float32], k: int, subset: NDArray[np.int64] | None) -> Ranked:
    return _best(vectors, query, _rough(vectors, _unit(query)), k, subset)


def _together(
    vectors: NDArray[np.float16], queries: NDArray[np.float32], k: int, subset: NDArray[np.int64] | None
) -> list[Ranked]:
    """Several queries by NumPy, for which the vectors are converted once."""
    rows = []
    for at in range(0, len(queries), _FEW):
        some = queries[at : at + _FEW]
        rough = _converted(vectors, _unit(some))
        rows += [_best(vectors, query, line, k, subset) for query, line in zip(some, rough, strict=True)]
    return rows


def _unit(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(queries, axis=-1, keepdims=True)
    return np.asarray(queries / np.maximum(lengths, 1e-12), np.float32)


def _best(
    vectors: NDArray[np.float16],
    query: NDArray[np.float32],
    rough: NDArray[np.float32],
    k: int,
    subset: NDArray[np.int64] | None,
) -> Ranked:
    """The k best by the products with every vector, each at most `_HALF_ERROR` from the exact one."""
    if subset is not None:
        left_out = np.ones(len(vectors), bool)
        left_out[subset] = False
        rough[left_out] = -np.inf
    # Whatever rounding has done, none of the k best lies further below the k-th than this.
    least = np.partition(rough, len(rough) - k)[len(rough) - k] - 2 * _HALF_ERROR
    return rescore(vectors, query, np.flatnonzero(rough >= least), k)


def _rough(vectors: NDArray[np.float16], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The products with every vector, each at most `_HALF_ERROR` from the exact one."""
    if "torch" in sys.modules:
        import torch

        rough: NDArray[np.float32] = torch.mv(_as_tensor(vectors), torch.from_numpy(query).half()).float().numpy()
        return rough
    return _converted(vectors, query[None]).reshape(-1)


def _converted(vectors: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries @ vectors.T in single precision, (Q, N)."""
    products = np.empty((len(queries), len(vectors)), np.float32)
    for start in range(0, len(vectors), _CACHED):
        block = _single(vectors[start : start + _CACHED])
        # One query at a time: for a product of matrices BLAS wakes threads and waits for them, which takes longer.
        for line, query in zip(products, queries, strict=True):
            line[start : start + len(block)] = block @ query
    return products


def _many(
    vectors: NDArray[np.float16], queries: NDArray[np.float32], k: int, subset: NDArray[np.int64] | None
) -> list[Ranked]:
    from mcip.core.topk import topk

    best, places = topk(np.ascontiguousarray(queries), _blocks(vectors, subset), k + _SPARE)
    numbers = places.numpy() if subset is None else subset[places.numpy()]
    lengths = np.linalg.norm(queries, axis=1)
    rows = []
    for query, length, scores, candidates in zip(queries, lengths, best.numpy(), numbers, strict=True):
        whole = len(scores) < k + _SPARE or scores[-1] < scores[k - 1] - 2 * _SINGLE_ERROR * length
        rows.append(rescore(vectors, query, candidates, k) if whole else _one(vectors, query, k, subset))
    return rows


def _blocks(vectors: NDArray[np.float16], subset: NDArray[np.int64] | None) -> Iterator[tuple[int, Tensor]]:
    """The vectors to search, block by block, each with its place among them."""
    count = len(vectors) if subset is None else len(subset)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        yield start, _as_tensor(vectors[start:stop] if subset is None else vectors[subset[start:stop]])


def _as_tensor(vectors: NDArray[np.float16]) -> Tensor:
    """The vectors as a tensor that shares their memory."""
    import torch

    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())
