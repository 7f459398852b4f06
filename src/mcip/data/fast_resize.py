"""Resizing with PyTorch's vectorised filter: the pixels of `mcip.data.resize` within a level or two of 255."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as tvf

from mcip.data.resize import Resize, offset


def resize_fast(pixels: NDArray[np.uint8], resize: Resize, size: tuple[int, int]) -> Tensor:
    """Resize an image to a square, several times faster than Pillow.

    What is enlarged is left to Pillow: it takes little time, and `resize` bounds the memory of thin images.

    Args:
        pixels: uint8 (H, W, 3), as `mcip.data.images.decode_reduced` gives them.
        resize: The size, the filter and the crop.
        size: Width and height of the whole image.

    Returns:
        uint8 (3, S, S), contiguous.

    Raises:
        UnreadableImage: The image is too thin.
    """
    wide, high = resize.resized_size(*size)
    height, width = pixels.shape[:2]
    if wide > width or high > height:
        square: Tensor = tvf.pil_to_tensor(resize(Image.fromarray(pixels)))
        return square.contiguous()
    # Channels last in memory: the layout that has a vectorised filter.
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if (width, height) != (wide, high):
        mode = "bilinear" if resize.resample == Image.Resampling.BILINEAR else "bicubic"
        image = F.interpolate(image[None], size=(high, wide), mode=mode, antialias=True)[0]
    side = resize.side
    left, top = offset(wide, side), offset(high, side)
    width, height = min(wide, side), min(high, side)
    square = torch.full((3, side, side), resize.fill, dtype=torch.uint8)
    window = image[:, max(-top, 0) : max(-top, 0) + height, max(-left, 0) : max(-left, 0) + width]
    square[:, max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width] = window
    return square
