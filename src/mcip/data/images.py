"""Decoding one image file into RGB, whatever its mode, or saying why it cannot be read."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mcip.core.errors import UnreadableImage

MAX_PIXELS: Final = 178_956_970
_JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_OTHER_SUFFIXES: Final = (".png", ".apng", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm", ".pbm")
IMAGE_SUFFIXES: Final = frozenset((*_JPEG_SUFFIXES, *_OTHER_SUFFIXES, ".pnm", ".ico", ".tga"))

# Formats that are plain pictures. EPS and WMF are left out on purpose: Pillow hands them to external programs.
_FORMATS: Final = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")


def decode(image: bytes | str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to RGB, upright and on white.

    The EXIF orientation is applied, transparency is put on white, CMYK is converted, 16-bit grey is scaled to
    8 bits (not clipped), and of an animation the first frame is taken. Pillow's global settings stay as they are.

    Args:
        image: The file's bytes, or its path.
        max_pixels: The largest width x height that is decoded. Pillow's own limit holds as well.

    Returns:
        An image of mode "RGB".

    Raises:
        UnreadableImage: The file is missing, empty, cut off, no image or too large; the message is the reason.
    """
    if isinstance(image, bytes):
        content = image
    else:
        try:
            content = Path(image).read_bytes()
        except FileNotFoundError:
            raise UnreadableImage(f"no file {image}") from None
        except OSError as error:
            raise UnreadableImage(f"cannot read {image}: {error.strerror or error}") from error
    if not content:
        raise UnreadableImage("empty file (0 bytes)")
    with warnings.catch_warnings():
        # Pillow warns about half its limit and about damaged metadata; what matters here is raised below.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=_registered_formats()) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise UnreadableImage(_too_large(f"{width} x {height} pixels", max_pixels))
                opened.load()
                _turn_upright(opened)
                return _to_rgb(opened)
        except UnreadableImage:
            raise
        except Image.DecompressionBombError as error:
            raise UnreadableImage(_too_large(str(error), max_pixels)) from error
        except UnidentifiedImageError:
            raise UnreadableImage(f"not an image ({len(content)} bytes, starting with {content[:8]!r})") from None
        except MemoryError as error:
            raise UnreadableImage("not enough memory to decode it") from error
        except Exception as error:  # Pillow's plugins raise many kinds of errors on damaged files
            raise UnreadableImage(f"damaged or cut off: {str(error) or type(error).__name__}") from error


def _registered_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _too_large(found: str, max_pixels: int) -> str:
    return f"too large, perhaps a decompression bomb: {found}; at most {max_pixels:,} pixels are decoded"


def _turn_upright(image: Image.Image) -> None:
    # Damaged EXIF data says nothing about the pixels.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey values of 16 bits, or of another range, to 0 .. 255."""
    values = np.nan_to_num(grey.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and grey.dtype.kind in "iu" and high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint8)
