"""Color profiles: images that carry one are converted to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

# A profile whose colors are those of sRGB within this many of 255 levels is one of sRGB.
_TOLERANCE: Final = 2
_MAX_PROFILE: Final = 8_000_000
_OPAQUE: Final = {"1": "L", "LA": "L", "La": "L", "I": "L", "F": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}


def opaque_mode(mode: str) -> str:
    """The mode whose colors a profile describes: "L", "CMYK", "LAB" or "RGB" without transparency or palette."""
    return "L" if mode.startswith("I;") else _OPAQUE.get(mode, "RGB")


def srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """What converts an image's colors, at `opaque_mode` of its mode, to sRGB in the mode "RGB".

    Returns:
        None if the image needs none: it has no profile, one of sRGB, a damaged one, or one of other channels than its
        own. LAB images have the profile of their mode.
    """
    mode = opaque_mode(image.mode)
    profile = image.info.get("icc_profile")
    if mode == "LAB":
        return _transform(b"", mode)
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE:
        return None
    return _transform(profile, mode)


@lru_cache(maxsize=8)
def _transform(content: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(content)) if content else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    return None if mode in ("L", "RGB") and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.arange(0, 256, 15 if mode == "RGB" else 1, dtype=np.uint8)
    if mode == "RGB":
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    else:
        grid = levels[None]
    image = Image.fromarray(grid)
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    difference = np.asarray(converted).astype(int) - np.asarray(image.convert("RGB"))
    return bool(np.abs(difference).max() <= _TOLERANCE)
