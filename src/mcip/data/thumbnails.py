"""Small versions of images."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from mcip.data.images import to_rgb

QUALITY: Final = 85


def thumbnail(image: Image.Image, side: int) -> bytes:
    """An image as JPEG, at most `side` pixels wide and high; smaller ones keep their size.

    Raises:
        UnreadableImage: It cannot be decoded.

    Example:
        >>> from mcip.data.images import decode
        >>> Path("small.jpg").write_bytes(thumbnail(decode("large.png"), 160))
    """
    small = to_rgb(image)
    if max(small.size) > side:
        small = small.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
