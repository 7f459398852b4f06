"""Blocks of a gallery on a device, as float32; what lies in host memory is copied to a GPU while the GPU computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = Tensor | NDArray[Any]
Gallery: TypeAlias = Array | Iterable[tuple[int, Array]]


# One thread does not read host memory as fast as a GPU can take it.
_COPIERS = 4


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
    pieces = (
        (first + start, part[start : start + size]) for first, part in parts for start in range(0, len(part), size)
    )
    if device.type == "cuda":
        return _streamed(pieces, device)
    return ((start, float32(piece, device)) for start, piece in pieces)


def _streamed(pieces: Iterator[tuple[int, Array]], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Blocks on a GPU; the one after is read and copied, in a stream of its own, while the GPU works on one.

    The allocator of pinned memory gives a buffer again when the copy out of it has ended, so there are two or three.
    """
    stream = torch.cuda.Stream(device)

    def load() -> tuple[int, Tensor, torch.cuda.Event | None] | None:
        start, piece = next(pieces, (0, None))
        if piece is None:
            return None
        if isinstance(piece, Tensor) and piece.device.type != "cpu":
            return start, piece, None
        pinned = _pinned(piece if isinstance(piece, np.ndarray) else piece.detach().float().numpy(), copiers)
        with torch.cuda.stream(stream):
            block = pinned.to(device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        return start, block, copied

    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(_COPIERS) as copiers:
        ahead = loader.submit(load)
        while (loaded := ahead.result()) is not None:
            ahead = loader.submit(load)
            start, block, copied = loaded
            if copied is not None:
                torch.cuda.current_stream(device).wait_event(copied)
                block.record_stream(torch.cuda.current_stream(device))
            yield start, float32(block, device)


def _pinned(piece: NDArray[Any], copiers: ThreadPoolExecutor) -> Tensor:
    """A copy in pinned memory; half precision stays half, which is half to copy."""
    dtype = torch.float16 if piece.dtype == np.float16 else torch.float32
    pinned = torch.empty(piece.shape, dtype=dtype, pin_memory=torch.cuda.is_available())
    rows = -(-len(piece) // _COPIERS)
    slices = [slice(start, start + rows) for start in range(0, len(piece), rows)]
    target = pinned.numpy()
    list(copiers.map(lambda part: np.copyto(target[part], piece[part], casting="same_kind"), slices))
    return pinned
