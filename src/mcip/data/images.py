"""The one decoder: an image file, or a PIL image of any mode, as upright RGB, or why it cannot be read."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from mcip.core.errors import McipError, UnreadableImage
from mcip.data.decoder_limits import DECODER_BYTES, MAX_BYTES, MAX_PIXELS, RGB_BYTES, check_image, check_size, too_large
from mcip.data.formats import (
    IMAGE_SUFFIXES,
    SUFFIX_EXTRAS,
    eager_size,
    missing_extra,
    open_lazily,
    register_extra,
    scans_of_jpeg,
    simpler_versions,
)
from mcip.data.grey import grey_range, is_deep, to_8_bits
from mcip.data.icc import opaque_mode, srgb_transform
from mcip.data.jpeg import draft_pixels
from mcip.data.quiet import without_pillow_warnings
from mcip.data.raw import is_raw, raw_preview

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "SUFFIX_EXTRAS",
    "decode",
    "decode_reduced",
    "media_type",
    "missing_extra",
    "to_rgb",
]

T = TypeVar("T")
# Encoders write about 10 scans of a progressive JPEG.
_MAX_SCANS: Final = 50
# Images are converted in strips of rows, so that what it takes in between is small.
_STRIP_PIXELS: Final = 2**18
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS: Final = frozenset(_TURNS[value] for value in (5, 6, 7, 8))


def decode(image: bytes | str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to RGB; see `to_rgb` for how.

    Of an animation or a file of several pages, the first one is taken. Neither Pillow's global settings nor the filters
    of warnings are changed, so that several threads may decode at a time.

    Args:
        image: The file's bytes, or its path.
        max_pixels: The largest width x height that is decoded. Decoding takes at most 16 bytes for each of them, and
            at most `MAX_BYTES`; formats and modes that would take more are refused before memory is taken.

    Returns:
        An image of mode "RGB".

    Raises:
        UnreadableImage: The file is missing, empty, cut off, no image, too large, or of a format whose extra is not
            installed; the message is the reason.

    Example:
        >>> decode("mug.jpg").mode
        'RGB'
    """
    return _of_any_version(image, max_pixels, lambda content: _decoded(content, max_pixels))


def decode_reduced(
    image: bytes | str | Path, side: int, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode an image file as `decode` does, but a JPEG at 1/2, 1/4 or 1/8 of its size where that is enough.

    Args:
        image: The file's bytes, or its path.
        side: No side of a JPEG gets shorter than this.
        max_pixels: See `decode`; it counts for the whole image.

    Returns:
        uint8 (H, W, 3), and the width and height that `decode` would give the image.

    Raises:
        UnreadableImage: See `decode`.
    """
    return _of_any_version(image, max_pixels, lambda content: _reduced(content, side, max_pixels))


def to_rgb(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Convert a PIL image to RGB, as `decode` does with a file: both give the same pixels.

    The EXIF orientation is applied, transparency is put on white, colors of an embedded profile (RGB, grey or CMYK)
    are converted to sRGB (a damaged profile is passed over), and grey of 16 bits, 32 bits or floats is scaled, not
    clipped: `mcip.data.grey.grey_range` says which values become black and white.

    Args:
        image: Of any mode; it may be opened but not decoded yet. It is left as it is.
        max_pixels: See `decode`.

    Returns:
        An image of mode "RGB" without metadata, for which `to_rgb` is the identity.

    Raises:
        UnreadableImage: It cannot be decoded, is too large or has no pixels; the message is the reason.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    with _reasons(max_pixels), without_pillow_warnings():
        result, turn = _converted(image, max_pixels)
        return result if turn is None else result.transpose(turn)


def media_type(content: bytes) -> str:
    """The media type of an image file, by its first bytes.

    Raises:
        UnreadableImage: It is no image, or one of a format whose extra is not installed.
    """
    with _reasons(MAX_PIXELS), without_pillow_warnings():
        if is_raw(content):
            return "image/x-dcraw"
        register_extra(content)
        eager = eager_size(content)
        if eager is not None:
            name: str | None = eager[0]
        else:
            with open_lazily(content) as encoded:
                name = encoded.format
        return Image.MIME.get(name or "", "application/octet-stream")


def _of_any_version(image: bytes | str | Path, max_pixels: int, read: Callable[[bytes], T]) -> T:
    """What is read from the file, or else from simpler versions of it."""
    content = image if isinstance(image, bytes) else _read(image, max_pixels)
    if not content:
        raise UnreadableImage("empty file (0 bytes)")
    try:
        return read(content)
    except UnreadableImage:
        for version in simpler_versions(content):
            with suppress(UnreadableImage):
                return read(version)
        raise


def _decoded(content: bytes, max_pixels: int) -> Image.Image:
    with _reasons(max_pixels), without_pillow_warnings():
        if is_raw(content):
            return raw_preview(
                content, lambda jpeg: decode(jpeg, max_pixels), partial(check_size, max_pixels=max_pixels)
            )
        result, turn = _converted(encoded := _opened(content, max_pixels), max_pixels)
        # Turning takes as much memory again: by then, the image as it was decoded is gone.
        encoded.close()
        del encoded
        return result if turn is None else result.transpose(turn)


def _reduced(content: bytes, side: int, max_pixels: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    with _reasons(max_pixels), without_pillow_warnings():
        encoded = None if is_raw(content) else _opened(content, max_pixels)
        if not isinstance(encoded, JpegImageFile):
            image = _decoded(content, max_pixels)
            return np.array(image), image.size
        check_image(encoded, max_pixels)
        (width, height), pixels = encoded.size, draft_pixels(content, encoded, side)
        turn = _TURNS.get(_orientation(encoded) or 0)
        if pixels is None or turn is not None or srgb_transform(encoded) is not None:
            image, _ = _converted(encoded, max_pixels)
            pixels = np.array(image if turn is None else image.transpose(turn))
        return pixels, (height, width) if turn in _QUARTER_TURNS else (width, height)


def _opened(content: bytes, max_pixels: int) -> Image.Image:
    """An image file that is not decoded yet, after the checks that need no decoding."""
    register_extra(content)
    eager = eager_size(content)
    if eager is not None:
        format_, size = eager
        check_size(size, DECODER_BYTES[format_] + 2 * RGB_BYTES, max_pixels)
    try:
        encoded = open_lazily(content)
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image ({len(content)} bytes, starting with {content[:8]!r})") from None
    if "progressive" in encoded.info and scans_of_jpeg(content) > _MAX_SCANS:
        raise UnreadableImage(f"it has more than {_MAX_SCANS} scans, perhaps to keep decoders busy")
    return encoded


def _read(path: str | Path, max_pixels: int) -> bytes:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(f"cannot read {path}: it is no file")
        # The pixels of the largest image take less, however they are stored.
        if status.st_size > max(MAX_BYTES, 8 * max_pixels):
            raise UnreadableImage(f"too large: {path} has {status.st_size:,} bytes")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableImage(f"no file {path}") from None
    except (OSError, ValueError) as error:
        raise UnreadableImage(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _reasons(max_pixels: int) -> Iterator[None]:
    """Turn what Pillow raises into `UnreadableImage`."""
    try:
        yield
    except McipError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(too_large(str(error), max_pixels)) from error
    except MemoryError as error:
        raise UnreadableImage("not enough memory to decode it") from error
    except Exception as error:  # Pillow's plugins raise many kinds of errors on damaged files
        # LibRaw says why in bytes.
        why = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise UnreadableImage(f"damaged or cut off: {why or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int | None:
    # Damaged EXIF data says nothing about the pixels.
    with suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def _converted(image: Image.Image, max_pixels: int) -> tuple[Image.Image, Image.Transpose | None]:
    """An image as RGB without metadata, and how it has to be turned to be upright."""
    check_image(image, max_pixels)
    image.load()
    # Formats differ in whether they store metadata before the pixels or after them.
    turn = _TURNS.get(_orientation(image) or 0)
    transform = srgb_transform(image)
    if image.mode == "RGB" and transform is None and not image.has_transparency_data:
        if type(image) is Image.Image and not image.info:
            return image, turn
        result = image.copy()
        result.info = {}
    elif is_deep(image):
        black, white = grey_range(image)
        result = _in_strips(image, lambda strip: _colors(to_8_bits(strip, black, white), transform))
    elif image.has_transparency_data:
        result = _in_strips(image, lambda strip: _on_white(strip, transform))
    else:
        mode = opaque_mode(image.mode)
        result = _in_strips(image, lambda strip: _colors(strip.convert(mode) if transform else strip, transform))
    return result, turn


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    result = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(convert(strip), (0, top))
    return result


def _colors(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """The colors of an image without transparency as sRGB; `image` has the mode of the transform."""
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only where the image itself is changed
    return converted


def _on_white(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if transform is not None:
        colors = _colors(layer.convert(opaque_mode(image.mode)), transform)
        colors.putalpha(layer.getchannel("A"))
        layer = colors
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")
