"""Which image formats are read, and opening a file of one of them without decoding its pixels."""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Collection, Iterator
from typing import Final

from PIL import BmpImagePlugin, IcoImagePlugin, Image, PngImagePlugin

from mcip.core.errors import UnreadableImage
from mcip.core.optional import module_or_none
from mcip.data.raw import RAW_SUFFIXES

_JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_OTHER_SUFFIXES: Final = (".png", ".apng", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".ppm", ".pgm", ".pbm")
# Of each format that comes with an extra: the extra and the module that reads it.
_EXTRAS: Final = {
    "HEIC": ("photos", "pillow_heif"), "JPEG XL": ("photos", "pillow_jxl"), "camera RAW": ("photos", "rawpy"),
}  # fmt: skip
_EXTRA_FORMATS: Final = {
    ".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC", ".jxl": "JPEG XL", **dict.fromkeys(RAW_SUFFIXES, "camera RAW"),
}  # fmt: skip

# The suffixes of images that are read with an extra, and the name of that extra.
SUFFIX_EXTRAS: Final = {suffix: _EXTRAS[format_][0] for suffix, format_ in _EXTRA_FORMATS.items()}
# The suffixes of images that are read with what is installed.
IMAGE_SUFFIXES: Final = frozenset((*_JPEG_SUFFIXES, *_OTHER_SUFFIXES, ".pnm", ".ico", ".tga")).union(
    suffix for suffix, name in _EXTRA_FORMATS.items() if importlib.util.find_spec(_EXTRAS[name][1])
)

# Formats that hold pixels only. EPS and WMF are left out on purpose: Pillow hands them to external programs.
_FORMATS: Final = (
    "JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "HEIF", "JXL",
)  # fmt: skip
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SCAN: Final = b"\xff\xda"
_JPEG_END: Final = b"\xff\xd9"
_ICO: Final = b"\0\0\1\0"
_JXL: Final = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIC_BRANDS: Final = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_PNG_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt", b"sPLT", b"tIME")
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


def register_extra(content: bytes) -> None:
    """Make Pillow know the format of a file, if it is one that is read with an extra and not known yet.

    Raises:
        UnreadableImage: The extra is not installed; the message says how to install it.
        ConfigError: It is installed, but cannot be imported.
    """
    Image.init()
    if content.startswith(_JXL):
        format_, name = "JPEG XL", "JXL"
    elif _is_heic(content):
        format_, name = "HEIC", "HEIF"
    else:
        return
    if name in Image.OPEN:
        return
    extra, module = _EXTRAS[format_]
    plugin = module_or_none(module)
    if plugin is None:
        raise UnreadableImage(f"{format_} needs pip install 'mcip[{extra}]'")
    if format_ == "HEIC":
        plugin.register_heif_opener()


def open_lazily(content: bytes) -> Image.Image:
    """Open an image file without decoding its pixels, where Pillow can do that; see `eager_size`.

    Raises:
        UnidentifiedImageError: It is no image of a format that is read.
        Exception: What Pillow raises on damaged files.
    """
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


def scans_of_jpeg(content: bytes) -> int:
    """How many scans a JPEG file has: each goes over all pixels of a progressive one, however few bytes it has."""
    at = 2
    while content[at : at + 2] not in (_JPEG_SCAN, b""):
        if content[at + 1 : at + 2] == b"\xff":  # filling before a marker
            at += 1
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    end = content.find(_JPEG_END, at)
    return content.count(_JPEG_SCAN, at, end if end >= 0 else len(content))


def simpler_versions(content: bytes) -> Iterator[bytes]:
    """A PNG without its texts, then also without its color profile; those that it has.

    They hold the same pixels. Texts and profiles may be damaged, or unpack to more than Pillow accepts.
    """
    if not content.startswith(_PNG):
        return
    for names in (_PNG_TEXTS, (*_PNG_TEXTS, b"iCCP")):
        version = _without_chunks(content, names)
        if len(version) < len(content):
            yield version
            content = version


def _without_chunks(content: bytes, names: Collection[bytes]) -> bytes:
    kept, at = [_PNG], len(_PNG)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] not in names:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def _is_heic(content: bytes) -> bool:
    """Whether a file's first box says that it is HEIC or HEIF, and not AVIF, which Pillow reads by itself."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = {content[at : at + 4] for at in range(8, end, 4)}
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


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
    for name, start, _ in _boxes(content, len(_JXL[1])):
        if name in (b"jxlc", b"jxlp"):
            # Part of a codestream: its number comes first.
            return start + (4 if name == b"jxlp" else 0)
    raise ValueError("a JPEG XL file without a codestream")


def jxl_boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The metadata in the container of a JPEG XL file, such as `Exif` and `xml `: the name and content of each box."""
    if content.startswith(_JXL[1]):
        for name, start, end in _boxes(content, len(_JXL[1])):
            if name in (b"Exif", b"xml "):
                yield name, content[start:end]


def _boxes(content: bytes, at: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each box from a place on, and where its content begins and ends."""
    while at + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
            header = 16
        end = at + size if size else len(content)
        if size and size < header:
            return
        yield name, at + header, end
        at = end
