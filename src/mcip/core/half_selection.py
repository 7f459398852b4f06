"""The search by products in half precision, which select, and by float32, which decides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mcip.core.products import products, whole_tiles
from mcip.core.running_topk import RunningTopK, reaching, run_maxima

# More neighbours leave too many pairs to compute again.
_MOST_NEIGHBOURS = 128
# Pairs are computed in chunks of one shape, in which a device sums all rows in the same order.
_PAIRS = 16_384
# A GPU may sum rows that are not aligned to vectors of this many numbers in another order.
_ALIGNED = 4
# Norms are rounded too.
_SLACK = 1.01


def can_select(device: torch.device, k: int) -> bool:
    """Whether a search for k neighbours on this device is faster by half precision."""
    return device.type == "cuda" and k <= _MOST_NEIGHBOURS and hasattr(torch.ops.aten.mm, "dtype_out")


@dataclass(frozen=True)
class _Block:
    """A block of the gallery: float32 and rounded rows, and the largest norms of rows and of their rounding errors."""

    rows: Tensor
    rounded: Tensor
    norm: Tensor
    lost: Tensor


class HalfSelection:
    """The search of one block of queries; the result is float32's.

    With q = q' + dq and g = g' + dg, where q' and g' are rounded to half precision, Cauchy and Schwarz have

        |q.g - q'.g'| <= |dq| |g| + |q'| |dg|,

    and summing D products in float32 adds an error of at most D 2^-23 |q| |g|, once here and once in the float32
    similarity. A gallery row whose half-precision similarity is below a query's k-th best float32 similarity so far by
    more than the sum of these is none of the k best. All others are computed again in float32.
    """

    def __init__(self, rows: Tensor, best: RunningTopK, dtype: torch.dtype) -> None:
        self.best, self._rows = best, _aligned(rows)
        self._rounded = self._rows.to(dtype)
        self._norms = self._rows.norm(dim=1, keepdim=True)
        self._rounded_norms = self._rounded.float().norm(dim=1, keepdim=True)
        self._lost = (self._rows - self._rounded.float()).norm(dim=1, keepdim=True)

    def prepare(self, block: Tensor) -> _Block:
        """A block of the gallery as all searches use it."""
        rows = _aligned(block)
        rounded = rows.to(self._rounded.dtype)
        return _Block(rows, whole_tiles(rounded), rows.norm(dim=1).amax(), (rows - rounded.float()).norm(dim=1).amax())

    def add_block(self, block: _Block, start: int, buffer: Tensor) -> None:
        """Search a block, whose first row has the gallery index `start`."""
        width = len(block.rows)
        scores = products(self._rounded, block.rounded, width, buffer)
        pairs = reaching(scores, self._least(scores, block), above=False)
        if pairs is None:
            self._add_all(block, start)
            return
        rows, columns, _ = pairs
        if width < scores.shape[1]:
            rows, columns = rows[columns < width], columns[columns < width]
        self.best.add(rows, columns + start, _pair_products(self._rows, block.rows, rows, columns))

    def _least(self, scores: Tensor, block: _Block) -> Tensor:
        """The half-precision similarity that a row must reach to be one of the k best, shape (Q, 1)."""
        summed = self._rows.shape[1] * 2**-22 * self._norms * block.norm
        error: Tensor = _SLACK * (self._lost * block.norm + self._rounded_norms * block.lost + summed)
        if self.best.full:
            return self.best.values[:, -1:].sub(error)
        maxima = run_maxima(scores)
        if maxima.shape[1] < self.best.k:
            return torch.full_like(error, -torch.inf)
        # The k highest maxima are k similarities: the k-th best one of float32 is below the least by at most the error.
        least: Tensor = maxima.topk(self.best.k, dim=1).values[:, -1:] - 2 * error
        return least

    def _add_all(self, block: _Block, start: int) -> None:
        """Compute every similarity to a block in float32, where most of them could be among the k best."""
        width = len(block.rows)
        at_once = max(1, _PAIRS // width)
        columns = torch.arange(width, device=block.rows.device)
        for first in range(0, len(self._rows), at_once):
            part = self.best.part(slice(first, first + at_once))
            count = len(part.values)
            rows = torch.arange(first, first + count, device=columns.device).repeat_interleave(width)
            scores = _pair_products(self._rows, block.rows, rows, columns.repeat(count)).view(count, width)
            part.add_block(pad(scores, (0, len(block.rounded) - width), value=-torch.inf), width, start)
            part.settle()


def _aligned(rows: Tensor) -> Tensor:
    return pad(rows, (0, -rows.shape[1] % _ALIGNED)) if rows.shape[1] % _ALIGNED else rows


def _pair_products(rows: Tensor, block: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The dot products of rows[left] and block[right], every one summed in the same order."""
    chunks = -(-len(left) // _PAIRS)
    found = rows.new_empty(chunks, _PAIRS)
    spare = (0, found.numel() - len(left))
    left, right = pad(left, spare).view(chunks, _PAIRS), pad(right, spare).view(chunks, _PAIRS)
    for chunk in range(chunks):
        torch.sum(rows[left[chunk]] * block[right[chunk]], dim=1, out=found[chunk])
    return found.flatten()[: found.numel() - spare[1]]
