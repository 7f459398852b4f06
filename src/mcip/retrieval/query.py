"""What may be asked: pictures in several forms, and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeAlias

from PIL import Image

from mcip.data import decode, to_rgb
from mcip.data.images import IMAGE_SUFFIXES
from mcip.retrieval.listing import read_image

# A picture: a file or URI, "id:" and an id of the index, or an image.
ImageLike: TypeAlias = "str | Path | Image.Image"
ID: Final = "id:"


def is_image(part: ImageLike) -> bool:
    """Whether a part of a query is a picture: an image, an id of the index, a file or a URI, and not a text."""
    if not isinstance(part, str):
        return True
    return part.startswith(ID) or Path(part).suffix.lower() in IMAGE_SUFFIXES or ("/" in part and Path(part).is_file())


def load_image(image: ImageLike) -> Image.Image:
    """An image as RGB; a file and the image that PIL opens it as give the same pixels.

    Raises:
        UnreadableImage: It cannot be read.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    return decode(read_image(str(image)))


def listed(value: Any) -> list[Any]:
    """One thing, several or none, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | Path | Image.Image) else list(value)
