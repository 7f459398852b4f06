"""How much memory decoding an image may take, judged by what its header claims."""

from __future__ import annotations

from typing import Final

from PIL import ExifTags, Image

from mcip.core.errors import UnreadableImage

# What Pillow raises an error at.
MAX_PIXELS: Final = 178_956_970
# Memory that decoding one image may take.
MAX_BYTES: Final = 1_600_000_000
# Of this memory, what may be taken for each pixel of `max_pixels`.
_MAX_BYTES_PER_PIXEL: Final = 16
# No image has sides as long as this; resampling takes memory for each pixel of a side.
_MAX_SIDE: Final = 1_000_000
# Bytes per pixel in memory: of a decoded image by its mode, of RGB, and of decoders beside the image they decode.
_MODE_BYTES: Final = {"1": 1, "L": 1, "P": 1}
_DEEP_BYTES: Final = 2
RGB_BYTES: Final = 4
DECODER_BYTES: Final = {"ICO": 8, "TIFF": 4, "WEBP": 8, "AVIF": 8, "HEIF": 8, "JPEG2000": 12, "JXL": 16}
_PROGRESSIVE_JPEG_BYTES: Final = 6


def too_large(found: str, max_pixels: int) -> str:
    """What the message says of an image with too many pixels."""
    return f"too large, perhaps a decompression bomb: {found}; at most {max_pixels:,} pixels are decoded"


def check_size(size: tuple[int, int], bytes_per_pixel: int, max_pixels: int) -> None:
    """Refuse an image whose decoding would take too much.

    Args:
        size: Width and height.
        bytes_per_pixel: Memory that decoding takes for each of its pixels.
        max_pixels: See `mcip.data.images.decode`.

    Raises:
        UnreadableImage: It has no pixels, too many, or is too thin.
    """
    width, height = size
    if min(size) < 1:
        raise UnreadableImage(f"it has no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise UnreadableImage(too_large(f"{width} x {height} pixels", max_pixels))
    if max(size) > _MAX_SIDE:
        raise UnreadableImage(f"too thin: {width} x {height} pixels; a side may have {_MAX_SIDE:,} at most")
    most = min(MAX_BYTES, _MAX_BYTES_PER_PIXEL * max_pixels)
    if width * height * bytes_per_pixel > most:
        raise UnreadableImage(
            f"too large: {width} x {height} pixels of its kind take {width * height * bytes_per_pixel / 1e6:,.0f} MB "
            f"when they are decoded, more than {most / 1e6:,.0f}"
        )


def check_image(image: Image.Image, max_pixels: int) -> None:
    """Refuse an image that is opened but not decoded, as `check_size` does, by its size and that of its tiles."""
    for size in (image.size, *_tile_sizes(image)):
        check_size(size, _bytes_per_pixel(image), max_pixels)


def _bytes_per_pixel(image: Image.Image) -> int:
    """Memory for each pixel of an image while it is decoded and converted."""
    decoded = _DEEP_BYTES if image.mode.startswith("I;") else _MODE_BYTES.get(image.mode, RGB_BYTES)
    decoder = DECODER_BYTES.get(image.format or "", 0)
    if "progressive" in image.info:
        decoder = _PROGRESSIVE_JPEG_BYTES
    return decoded + decoder + RGB_BYTES


def _tile_sizes(image: Image.Image) -> list[tuple[int, int]]:
    """The size of a TIFF's tiles, which are decoded whole, however small the image is; none of other images."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength))
    return [(width, height)] if isinstance(width, int) and isinstance(height, int) else []
