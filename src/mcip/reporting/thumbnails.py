"""Small images for a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import Table

THUMBNAIL = 160


def jpeg_uri(content: bytes) -> str:
    """A JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def thumbnail(table: Table, row: int, size: int = THUMBNAIL) -> str | None:
    """A row's image, at most `size` pixels wide and high, as a data URI; None where it cannot be read."""
    try:
        picture = table.image(row)
    except UnreadableImage:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return jpeg_uri(file.getvalue())
