"""Memory-mapped vectors, brought into memory before queries need them."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Bytes that are touched at a time, and between two of them: no page is smaller.
_CHUNK: Final = 1 << 26
_PAGE: Final = 4096


def touch_pages(array: NDArray[Any]) -> threading.Thread:
    """Read a byte of every page of a memory-mapped array, in the background.

    A query that is the first to need a page waits until it is mapped, and far longer where it has to be read from the
    disk. The system may take the pages back, as those of any file. The thread does not keep a process from ending.
    """
    content = array.reshape(-1).view(np.uint8)

    def touch() -> None:
        for start in range(0, len(content), _CHUNK):
            content[start : start + _CHUNK : _PAGE].max()

    thread = threading.Thread(target=touch, name="touch-pages", daemon=True)
    thread.start()
    return thread
