"""Matrix products whose sums do not depend on where two vectors stand, and the search by them."""

from __future__ import annotations

import torch
from torch import Tensor

from mcip.core.running_topk import RUN, RunningTopK

# Products of whole tiles are summed in one order, so that equal vectors have equal similarities wherever they stand.
TILE_ROWS = 16


class Float32Search:
    """The search of one block of queries by float32 products."""

    def __init__(self, rows: Tensor, best: RunningTopK) -> None:
        self.best = best
        self._count, self._rows = len(rows), whole_tiles(rows, TILE_ROWS)

    def prepare(self, block: Tensor) -> tuple[Tensor, int]:
        """A block of the gallery as all searches use it."""
        return whole_tiles(block), len(block)

    def add_block(self, block: tuple[Tensor, int], start: int, buffer: Tensor) -> None:
        """Search a block, whose first row has the gallery index `start`."""
        self.best.add_block(products(self._rows, *block, buffer)[: self._count], block[1], start)


def whole_tiles(rows: Tensor, size: int = RUN) -> Tensor:
    """The rows, with rows of zeros behind them up to a multiple of `size`."""
    return rows if len(rows) % size == 0 else torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % size))


def multiply(rows: Tensor, block: Tensor, out: Tensor) -> None:
    """Write rows @ block.T to `out`, every product summed in the same order, wherever its two vectors stand.

    Args:
        rows: Shape (Q, D), float32.
        block: Shape (N, D), float32.
        out: Shape (Q, N).
    """
    tiled, whole = whole_tiles(rows, TILE_ROWS), len(block) - len(block) % RUN
    if len(tiled) == len(rows):
        torch.mm(rows, block[:whole].T, out=out[:, :whole])
    else:
        out[:, :whole] = torch.mm(tiled, block[:whole].T)[: len(rows)]
    if whole < len(block):
        out[:, whole:] = torch.mm(tiled, whole_tiles(block[whole:]).T)[: len(rows), : len(block) - whole]


def products(rows: Tensor, block: Tensor, width: int, buffer: Tensor) -> Tensor:
    """Multiply rows by block.T, both of whole tiles, and set the columns beyond `width` to -inf.

    It is done in the buffer, which grows: fresh pages for each block cost as much as the product.

    Args:
        rows: Shape (Q, D), float32, float16 or bfloat16.
        block: Shape (W, D), of the same dtype.
        width: How many of its rows are not padding.
        buffer: Float32, one-dimensional.

    Returns:
        Float32 sums of the products, shape (Q, W), in the buffer.
    """
    size = len(rows) * len(block)
    if buffer.numel() < size:
        buffer.resize_(size)
    scores = buffer[:size].view(len(rows), len(block))
    if rows.device.type == "cuda" and rows.dtype != torch.float32:
        torch.ops.aten.mm.dtype_out(rows, block.T, torch.float32, out=scores)
    else:
        torch.mm(rows.float(), block.float().T, out=scores)
    scores[:, width:] = -torch.inf
    return scores
