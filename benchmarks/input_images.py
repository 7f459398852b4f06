"""JPEG files of 640 x 480 to decode: drawn, or made of given images."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE, QUALITY, SEED = (640, 480), 90, 37


def drawn(count: int) -> list[Image.Image]:
    """Images with soft shapes, edges and noise."""
    generator = np.random.default_rng(SEED)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        image = coarse.resize(SIZE, Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(40):
            corner = generator.integers(0, SIZE)
            box = (*corner.tolist(), *(corner + generator.integers(5, 160, 2)).tolist())
            draw.ellipse(box, tuple(generator.integers(0, 256, 3).tolist()))
        noise = Image.fromarray(generator.integers(0, 256, (*SIZE[::-1], 3), np.uint8))
        images.append(Image.blend(image, noise.filter(ImageFilter.GaussianBlur(1)), 0.15))
    return images


def at_size(images: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """Images of 640 x 480 made of others: cropped and reduced, or put side by side where they are smaller."""
    made: list[Image.Image] = []
    stream = iter(range(10**9))
    while len(made) < count:
        image = images[next(stream) % len(images)]
        if image.width >= SIZE[0] and image.height >= SIZE[1]:
            scale = max(SIZE[0] / image.width, SIZE[1] / image.height)
            wide, high = SIZE[0] / scale, SIZE[1] / scale
            left, top = (image.width - wide) / 2, (image.height - high) / 2
            made.append(image.resize(SIZE, Image.Resampling.LANCZOS, (left, top, left + wide, top + high)))
            continue
        sheet = Image.new("RGB", SIZE)
        for top in range(0, SIZE[1], 96):
            for left in range(0, SIZE[0], 92):
                tile = images[next(stream) % len(images)]
                sheet.paste(tile.resize((92, 96), Image.Resampling.BICUBIC), (left, top))
        made.append(sheet)
    return made


def encoded(images: Sequence[Image.Image]) -> list[bytes]:
    """The images as JPEG files."""
    contents = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=QUALITY)
        contents.append(stream.getvalue())
    return contents
