"""Images of noise, and the bytes of image files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def noise_image(seed: int = 0, width: int = 24, height: int = 16) -> Image.Image:
    """An RGB image, the same for the same seed and size."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def file_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The image as a file of this kind."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
