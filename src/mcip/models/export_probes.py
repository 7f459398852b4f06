"""Images and texts by which an exported model is compared with the model it came from."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

_SUBJECTS: Final = (
    "mug",
    "star",
    "dog",
    "harbour at night",
    "pair of worn leather shoes",
    "birthday cake",
    "map",
    "bus",
)
_PHRASES: Final = (
    "{}", "a {}", "a photo of a {}.", "Two {}s, one RED and one blue!", "the {} on a wooden table, seen from above",
    "a drawing of a {} by a child, with crayons on yellow paper", "no {} at all; café, 3 × 4 = 12 & more", "{} " * 40,
)  # fmt: skip


def probe_texts() -> list[str]:
    """Texts of many lengths, 64 of them: empty ones apart, all that a tokenizer may meet."""
    return [phrase.format(*[word] * 40) for phrase in _PHRASES for word in _SUBJECTS]


def probe_images(side: int, count: int) -> list[Image.Image]:
    """Noise, and shapes on colored grounds, of several sizes and aspects around `side` pixels; the same each time."""
    random, images = np.random.default_rng(0), []
    for number in range(count):
        width, height = (int(length) for length in random.integers(max(2, side // 2), 2 * side, 2))
        if number % 2:
            images.append(Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)))
            continue
        image = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for shape in (draw.ellipse, draw.rectangle):
            left, top = int(random.integers(0, width)), int(random.integers(0, height))
            shape((left, top, left + width // 2, top + height // 2), fill=tuple(random.integers(0, 256, 3).tolist()))
        images.append(image)
    return images
