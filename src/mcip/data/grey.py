"""Grey images of more than 8 bits as 8-bit ones: which of their values is black, and which is white."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip.core.errors import UnreadableImage

# Of images larger than this, evenly spaced pixels stand for all.
_SAMPLE_SIDE: Final = 1024
# Share of the smallest and of the largest values that are taken for outliers.
_OUTLIERS: Final = 0.01
# Ranges of values: they hold if the largest value is in the bounds. A float image that reaches 10 is not nearly black.
_INTEGER_RANGES: Final = ((0.0, 255.0), (0.0, 65535.0))
_FLOAT_RANGES: Final = ((0.0, 1.0), (16.0, 255.0), (4096.0, 65535.0))
# Where one value is so far away that all others share fewer than 8 of 256 levels, it is no value of a pixel.
_LEAST_SHARE: Final = 8 / 256


def is_deep(image: Image.Image) -> bool:
    """Whether an image has one channel of 16 bits, 32 bits or floats."""
    return image.mode.startswith("I") or image.mode == "F"


def grey_range(image: Image.Image) -> tuple[float, float]:
    """The values of a grey image that become black and white.

    16-bit integers have the range of their type: 0 is black, 65535 is white. 32-bit integers and floats have no such
    range. Theirs is found from their finite values, without the smallest and the largest 1% (at least one value each),
    so that single values such as 1.001, -9999 or infinity change nothing:

    - if none is below 0, the range is [0, 1] (floats), [0, 255] or [0, 65535] if they fit in; a float image that
      would use less than 1/16 of the two larger ranges is not taken for one of them;
    - else it reaches from the smallest to the largest of the values that are left.

    Args:
        image: Of mode "I", "F" or a 16-bit mode.

    Returns:
        The values of black and white. They are equal if all values are equal and in none of the ranges.

    Raises:
        UnreadableImage: No value is finite, or more than 1% have one that lies so far from all the others that these
            would become one grey: what it stands for cannot be decided.
    """
    if image.mode.startswith("I;"):
        return 0.0, 65535.0
    sides = min(image.width, _SAMPLE_SIDE), min(image.height, _SAMPLE_SIDE)
    sample = np.asarray(image.resize(sides, Image.Resampling.NEAREST))
    values = np.sort(sample[np.isfinite(sample)]).astype(np.float64)
    if not len(values):
        raise UnreadableImage("none of its values is a finite number")
    outliers = min(max(1, int(_OUTLIERS * len(values))), (len(values) - 1) // 2)
    values = values[outliers : len(values) - outliers]
    low, high = float(values[0]), float(values[-1])
    for least, most in _FLOAT_RANGES if image.mode == "F" else _INTEGER_RANGES:
        if low >= 0 and least <= high <= most:
            return 0.0, most
    _check_gap(values)
    return low, high


def to_8_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    """Scale values linearly, so that `black` becomes 0 and `white` 255; what lies outside is clipped, NaN is black."""
    values = np.asarray(image).astype(np.float64)
    scaled = (values - black) * (255.0 / (white - black) if white > black else 0.0)
    # An infinity times 0 is NaN.
    grey = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _check_gap(values: NDArray[np.float64]) -> None:
    """Refuse sorted values of which the smallest or the largest one is far from all others, which are close."""
    low, high = values[0], values[-1]
    for extreme, others in ((low, values[values > low]), (high, values[values < high])):
        if not len(others) or others[0] == others[-1]:
            continue
        if others[-1] - others[0] < _LEAST_SHARE * (high - low):
            share = 1 - len(others) / len(values)
            raise UnreadableImage(
                f"{share:.0%} of its values are {extreme:g}, the others lie between {others[0]:g} and {others[-1]:g}: "
                "what is black and what is white cannot be decided. Convert it to 8 or 16 bits"
            )
