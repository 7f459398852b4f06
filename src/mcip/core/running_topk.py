"""The k best gallery rows of each query so far, as blocks of the gallery come by."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

RUN = 32
_NO_INDEX = 2**62  # more than any index; `pad` takes it as a float, which holds it


class RunningTopK:
    """The k highest similarities of each query so far; of equal ones, those with the lower gallery indices.

    Before the similarities to a block are added, `begin_block` says which block it is.

    Attributes:
        values: Shape (Q, k), float32, descending; fewer columns while the gallery has had fewer rows.
        indices: Their gallery indices, int64.
        full: Whether there were k gallery rows before this block.
        last: Whether this block lies behind all that were before, so that equal similarities change nothing.
    """

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self.k = k
        self.values = torch.empty(queries, 0, device=device)
        self.indices = torch.empty(queries, 0, device=device, dtype=torch.int64)
        self.full = self.last = False
        self._seen = self._end = 0

    def begin_block(self, start: int, width: int) -> None:
        """A block comes: `width` rows of the gallery, the first of which has the index `start`."""
        self.full, self.last = self._seen >= self.k, start >= self._end
        self._seen, self._end = self._seen + width, max(self._end, start + width)
        more = (0, min(self.k, self._seen) - self.values.shape[1])
        self.values, self.indices = pad(self.values, more, value=-torch.inf), pad(self.indices, more, value=_NO_INDEX)

    def part(self, rows: slice) -> RunningTopK:
        """Some of the queries; what is added to the part is added here."""
        part = copy(self)
        part.values, part.indices = self.values[rows], self.indices[rows]
        return part

    def add_block(self, scores: Tensor, width: int, start: int) -> None:
        """Add all similarities to a block.

        Args:
            scores: Shape (Q, W), W a multiple of 32; the columns beyond `width` are -inf.
            width: Rows of the block.
            start: The gallery index of its first row.
        """
        pairs = reaching(scores, self.values[:, -1:], above=self.last) if self.full else None
        if pairs is not None:
            rows, columns, values = pairs
            self.add(rows, columns + start, values)
            return
        values, columns = _select(scores, width, self.k)
        self._keep(slice(None), values, columns + start)

    def add(self, rows: Tensor, indices: Tensor, values: Tensor) -> None:
        """Add some similarities.

        Args:
            rows: Their queries, shape (n,), ascending.
            indices: Their gallery indices, shape (n,).
            values: The similarities, shape (n,).
        """
        if len(rows):
            with_any, counts = rows.unique_consecutive(return_counts=True)
            line = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
            place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[line]
            padded = values.new_full((len(counts), int(counts.max())), -torch.inf)
            padded_indices = torch.full_like(padded, _NO_INDEX, dtype=torch.int64)
            padded[line, place], padded_indices[line, place] = values, indices
            self._keep(with_any, padded, padded_indices)

    def _keep(self, rows: Tensor | slice, values: Tensor, indices: Tensor) -> None:
        """Keep the first k of what these queries have and of what comes, equal values in ascending order of index."""
        values, indices = torch.cat([self.values[rows], values], 1), torch.cat([self.indices[rows], indices], 1)
        indices, order = indices.sort(dim=1)
        values, by_value = values.gather(1, order).sort(dim=1, descending=True, stable=True)
        kept = self.values.shape[1]
        self.values[rows], self.indices[rows] = values[:, :kept], indices.gather(1, by_value[:, :kept])


def reaching(scores: Tensor, least: Tensor, above: bool) -> tuple[Tensor, Tensor, Tensor] | None:
    """The similarities that reach their row's least one; None where they are so many that finding them saves no work.

    After some blocks there are few: one pass over the maxima of runs leaves little to look at.

    Args:
        scores: Shape (Q, W), W a multiple of 32.
        least: Shape (Q, 1).
        above: Whether only those above it count.

    Returns:
        Rows (n,), ascending, columns (n,) and similarities (n,).
    """
    on_cpu = scores.device.type == "cpu"
    # NumPy's reductions of short axes are several times as fast as PyTorch's, and start no threads.
    values, bound = (scores.numpy(), least.numpy()) if on_cpu else (scores, least)
    runs = values.reshape(len(scores), RUN, scores.shape[1] // RUN)
    maxima = runs.max(1) if on_cpu else runs.amax(1)
    rows, places = _nonzero(_reached(maxima, bound, above))
    if len(rows) * RUN > scores.numel() // 4:
        return None
    near = runs[rows, :, places]
    lines, steps = _nonzero(_reached(near, bound[rows], above))
    found = rows[lines], places[lines] + steps * maxima.shape[1], near[lines, steps]
    return tuple(torch.from_numpy(part) for part in found) if on_cpu else found  # type: ignore[return-value]


def _reached(values: Any, bound: Any, above: bool) -> Any:
    # What is not a number reaches every bound, so that it is looked at.
    return ~(values <= bound) if above else ~(values < bound)


def _nonzero(mask: Any) -> tuple[Any, Any]:
    return mask.nonzero(as_tuple=True) if isinstance(mask, Tensor) else mask.nonzero()


def run_maxima(scores: Tensor) -> Tensor:
    """The maximum of each run. Run j holds the columns j, j + W / 32, ...: vectors are compared, not their elements."""
    return scores.view(len(scores), RUN, scores.shape[1] // RUN).amax(1)


def _select(scores: Tensor, width: int, k: int) -> tuple[Tensor, Tensor]:
    """The top k of each row; where equal values compete for the last places, the lower indices win."""
    if k >= width:
        return scores[:, :width].clone(), torch.arange(width, device=scores.device).expand(len(scores), -1)
    if width >= 4 * RUN * k:
        # No run but the k with the highest maxima can hold one of the top k.
        maxima = run_maxima(scores)
        top, runs = maxima.topk(k + 1, dim=1)
        steps = torch.arange(RUN, device=scores.device)[:, None] * maxima.shape[1]
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
