"""The k best gallery rows of each query so far, as blocks of the gallery come by."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

RUN = 32
_NO_INDEX = 2**62  # more than any index; `pad` takes it as a float, which holds it


class RunningTopK:
    """The k highest similarities of each query so far; of equal ones, those with the lower gallery indices.

    Before the similarities to a block are added, `begin_block` says which block it is; behind the last comes `settle`.

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
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._seen = self._end = 0

    def begin_block(self, start: int, width: int) -> None:
        """A block comes: `width` rows of the gallery, the first of which has the index `start`."""
        self.full, self.last = self._seen >= self.k, start >= self._end
        self._seen, self._end = self._seen + width, max(self._end, start + width)
        more = (0, min(self.k, self._seen) - self.values.shape[1])
        self.values, self.indices = pad(self.values, more, value=-torch.inf), pad(self.indices, more, value=_NO_INDEX)

    def part(self, rows: slice) -> RunningTopK:
        """Some of the queries; what is added to the part and settled there is added here."""
        self.settle()
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
        rows = torch.arange(len(values), device=values.device).repeat_interleave(values.shape[1])
        self.add(rows, (columns + start).flatten(), values.flatten())

    def add(self, rows: Tensor, indices: Tensor, values: Tensor) -> None:
        """Add some similarities; `settle` ranks them, at the latest when there is one for each query.

        Args:
            rows: Their queries, shape (n,).
            indices: Their gallery indices, shape (n,).
            values: The similarities, shape (n,).
        """
        self._waiting.append((rows, indices, values))
        if sum(len(rows) for rows, _, _ in self._waiting) >= len(self.values):
            self.settle()

    def settle(self) -> None:
        """Keep the k best of what was kept and of what was added since."""
        added = [torch.cat(parts) for parts in zip(*self._waiting, strict=True)]
        self._waiting.clear()
        if not added or not len(added[0]):
            return
        count, kept = self.values.shape
        (rows, indices, values), best, best_indices = map(_array, added), _array(self.values), _array(self.indices)
        a = np if isinstance(rows, np.ndarray) else torch
        counts = a.bincount(rows, minlength=count)
        (queries,) = _nonzero(counts)
        counts = counts[queries] + kept
        rows = a.concatenate([a.broadcast_to(queries[:, None], (len(queries), kept)).flatten(), rows])
        indices = a.concatenate([best_indices[queries].flatten(), indices])
        values = a.concatenate([best[queries].flatten(), values])
        places = (counts.cumsum(0) - counts)[:, None] + _array(torch.arange(kept, device=self.values.device))
        order = _order(rows, values, indices)[places]
        best[queries], best_indices[queries] = values[order], indices[order]


def _array(tensor: Tensor) -> Any:
    """A tensor on the CPU as an array of the same memory.

    What is done to few numbers takes NumPy less time than PyTorch, which starts threads for them.
    """
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def _order(rows: Any, values: Any, indices: Any) -> Any:
    """The places of similarities in ascending order of row, then descending of value, then ascending of index."""
    if isinstance(rows, np.ndarray):
        return np.lexsort((indices, -values, rows))
    order = indices.argsort()
    order = order[values[order].argsort(descending=True, stable=True)]
    return order[rows[order].argsort(stable=True)]


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
    values, bound = _array(scores), _array(least)
    runs = values.reshape(len(scores), RUN, scores.shape[1] // RUN)
    maxima = runs.max(1) if isinstance(runs, np.ndarray) else runs.amax(1)
    rows, places = _nonzero(_reached(maxima, bound, above))
    if len(rows) * RUN > scores.numel() // 4:
        return None
    near = runs[rows, :, places]
    lines, steps = _nonzero(_reached(near, bound[rows], above))
    found = rows[lines], places[lines] + steps * maxima.shape[1], near[lines, steps]
    return found if isinstance(found[0], Tensor) else tuple(map(torch.from_numpy, found))  # type: ignore[return-value]


def _reached(values: Any, bound: Any, above: bool) -> Any:
    # What is not a number reaches every bound, so that it is looked at.
    return ~(values <= bound) if above else ~(values < bound)


def _nonzero(mask: Any) -> tuple[Any, ...]:
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
