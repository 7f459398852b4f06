"""Image files as a model's input, outside of training, by Pillow alone: PyTorch is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip.core.choices import Decode, TransformName
from mcip.data.images import decode, decode_reduced, to_rgb
from mcip.data.resize import MARGIN, ModelResize, Squash


@dataclass(frozen=True)
class PillowTransform:
    """What `mcip.data.ImageTransform` does to one image outside of training, up to the normalisation.

    Attributes:
        resize: Of the model.
        name: "model" for the model's own transform, "paper" for the one of the paper.
        decode: How `read` makes pixels of a file: "exact" as `prepare` does; "fast" decodes a JPEG at 1/2, 1/4 or 1/8
            of its size where that is enough.
    """

    resize: ModelResize
    name: TransformName = "model"
    decode: Decode = "exact"

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one image to uint8 (3, S, S).

        Raises:
            UnreadableImage: It cannot be decoded, or is too thin for resizing.
        """
        rgb = to_rgb(image)
        return self._square(rgb, rgb.size)

    def read(self, source: bytes | str | Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode and resize an image file; uint8 (3, S, S), and the image's width and height.

        Raises:
            UnreadableImage: See `prepare`.
        """
        if self.decode == "fast":
            pixels, size = decode_reduced(source, self._resize.side)
            return self._square(Image.fromarray(pixels), size), size
        image = decode(source)
        return self.prepare(image), image.size

    @property
    def _resize(self) -> ModelResize | Squash:
        return self.resize if self.name == "model" else Squash(round(MARGIN * self.resize.side))

    def _square(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The square of an RGB image; `size` is that of the whole one, where this one is reduced."""
        side = self.resize.side
        resized = self._resize(image, size)
        if resized.width > side:
            start = round((resized.width - side) / 2)
            resized = resized.crop((start, start, start + side, start + side))
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
