"""Small images for a page."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import Table

THUMBNAIL_SIDE: Final = 160


def jpeg_uri(content: bytes) -> str:
    """A JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def row_thumbnail(table: Table, row: int, side: int = THUMBNAIL_SIDE) -> str | None:
    """A row's image, at most `side` pixels wide and high, as a data URI; None where it cannot be read."""
    try:
        image = table.image(row)
    except UnreadableImage:
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return jpeg_uri(file.getvalue())
