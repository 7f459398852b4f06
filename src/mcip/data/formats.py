"""Which image formats are read, and opening a file of one of them without decoding its pixels."""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
from typing import Final

from PIL import BmpImagePlugin, IcoImagePlugin, Image, PngImagePlugin

from mcip.core.errors import UnreadableImage

_JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_OTHER_SUFFIXES: Final = (".png", ".apng", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm", ".pbm")
# Of each format that comes with an extra: the extra and the module that reads it.
_EXTRAS: Final = {"HEIC": ("photos", "pillow_heif"), "JPEG XL": ("photos", "pillow_jxl")}
_EXTRA_FORMATS: Final = {".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC", ".jxl": "JPEG XL"}

# The suffixes of images that are read with an extra, and the name of that extra.
SUFFIX_EXTRAS: Final = {suffix: _EXTRAS[format_][0] for suffix, format_ in _EXTRA_FORMATS.items()}
# The suffixes of images that are read with what is installed.
IMAGE_SUFFIXES: Final = frozenset(
    (*_JPEG_SUFFIXES, *_OTHER_SUFFIXES, ".pnm", ".ico", ".tga")
    + tuple(suffix for suffix, name in _EXTRA_FORMATS.items() if importlib.util.find_spec(_EXTRAS[name][1]))
)

# Formats that hold pixels only. EPS and WMF are left out on purpose: Pillow hands them to external programs.
_FORMATS: Final = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "HEIF", "JXL",
)  # fmt: skip
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_ICO: Final = b"\0\0\1\0"
_JXL: Final = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIC_BRANDS: Final = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_PNG_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"sPLT", b"tIME")
# JPEG XL: widths as parts of the height, and the bits of a size and what is added to it.
_JXL_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_SIZE_BITS: Final = (9, 13, 18, 30)


def missing_extra(suffix: str) -> str | None:
    """The extra that has to be installed for reading files of this suffix; None where none is missing.

    Example:
        >>> missing_extra(".png") is None
        True
    """
    return None if suffix.lower() in IMAGE_SUFFIXES else SUFFIX_EXTRAS.get(suffix.lower())


def open_lazily(content: bytes) -> Image.Image:
    """Open an image file without decoding its pixels, where Pillow can do that; see `eager_size`.

    Raises:
        UnreadableImage: It needs an extra that is not installed.
        UnidentifiedImageError: It is no image of a format that is read.
        Exception: What Pillow raises on damaged files.
    """
    _register_extra(content)
    return Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])


def eager_size(content: bytes) -> tuple[str, tuple[int, int]] | None:
    """The format, and the width and height that a file claims, if Pillow decodes its format when it opens it.

    Returns:
        None for files that are opened without being decoded.
    """
    if content.startswith(_ICO):
        return "ICO", _icon_size(content)
    if content.startswith(_JXL):
        return "JXL", _jxl_size(content)
    return None


def without_texts(content: bytes) -> bytes | None:
    """A PNG without its texts and color profile, which may be damaged, or unpack to more than Pillow accepts.

    Returns:
        None if it is no PNG, or has none of them.
    """
    if not content.startswith(_PNG):
        return None
    kept, at = [_PNG], len(_PNG)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] not in _PNG_TEXTS:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    plain = b"".join(kept)
    return plain if len(plain) < len(content) else None


def _register_extra(content: bytes) -> None:
    """Make Pillow know a format that is read with an extra, when the first file of it comes."""
    Image.init()
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        format_, pillow_name = "HEIC", "HEIF"
    elif content.startswith(_JXL):
        format_, pillow_name = "JPEG XL", "JXL"
    else:
        return
    if pillow_name in Image.OPEN:
        return
    extra, module = _EXTRAS[format_]
    try:
        plugin = importlib.import_module(module)
    except ImportError:
        raise UnreadableImage(f"{format_} needs pip install 'mcip[{extra}]'") from None
    if format_ == "HEIC":
        plugin.register_heif_opener()


def _icon_size(content: bytes) -> tuple[int, int]:
    """The size of the image that Pillow takes from an icon: its directory says 256 pixels at most, whatever it is."""
    stream = io.BytesIO(content)
    entry = IcoImagePlugin.IcoFile(stream).entry[0]
    stream.seek(entry.offset)
    if content[entry.offset :].startswith(_PNG):
        return PngImagePlugin.PngImageFile(stream).size
    width, height = BmpImagePlugin.DibImageFile(stream).size
    return width, height // 2


def _jxl_size(content: bytes) -> tuple[int, int]:
    """The size in the header of a JPEG XL codestream (ISO/IEC 18181-1, SizeHeader)."""
    start = _jxl_codestream(content) + len(_JXL[0])
    bits, at = int.from_bytes(content[start : start + 12], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take(_JXL_SIZE_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _jxl_codestream(content: bytes) -> int:
    """Where the codestream of a JPEG XL file begins: at once, or in a box of its container (ISO/IEC 18181-2)."""
    if content.startswith(_JXL[0]):
        return 0
    at = len(_JXL[1])
    while True:
        size, name = struct.unpack_from(">I4s", content, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
            header = 16
        if name in (b"jxlc", b"jxlp"):
            # Part of a codestream: its number comes first.
            return at + header + (4 if name == b"jxlp" else 0)
        if size < header:
            raise ValueError("a JPEG XL file without a codestream")
        at += size
