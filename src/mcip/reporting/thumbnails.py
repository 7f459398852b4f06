"""Small images for a page."""

from __future__ import annotations

import base64
from typing import Final

from mcip.core.errors import UnreadableImage
from mcip.data import Table
from mcip.data.thumbnails import thumbnail

THUMBNAIL_SIDE: Final = 160


def jpeg_uri(content: bytes) -> str:
    """A JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def row_thumbnail(table: Table, row: int, side: int = THUMBNAIL_SIDE) -> str | None:
    """A row's image, at most `side` pixels wide and high, as a data URI; None where it cannot be read."""
    try:
        return jpeg_uri(thumbnail(table.image(row), side))
    except UnreadableImage:
        return None
