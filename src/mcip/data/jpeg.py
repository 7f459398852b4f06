"""JPEGs decoded at a part of their size."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from mcip.core.optional import module_or_none


def draft_pixels(content: bytes, encoded: JpegImageFile, side: int) -> NDArray[np.uint8] | None:
    """Let a JPEG be decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that is not smaller than a square.

    The decoder then computes fewer coefficients of each block, which averages the pixels.

    Args:
        content: The file.
        encoded: The same, opened but not decoded; afterwards it has the smaller size.
        side: Of the square, in pixels.

    Returns:
        uint8 (H, W, 3), by the package simplejpeg: the same pixels as Pillow's, in less time. None where it is not
        installed, or cannot read the file: then Pillow has to.

    Raises:
        ConfigError: simplejpeg is installed, but cannot be imported.
    """
    encoded.draft(None, (side, side))
    decoder = _simplejpeg()
    if decoder is None or encoded.mode not in ("RGB", "L"):
        return None
    try:
        pixels: NDArray[np.uint8] = decoder.decode_jpeg(content, min_height=encoded.height, min_width=encoded.width)
    except ValueError:
        return None
    return pixels if pixels.shape == (encoded.height, encoded.width, 3) else None


@lru_cache(maxsize=1)
def _simplejpeg() -> Any:
    return module_or_none("simplejpeg")
