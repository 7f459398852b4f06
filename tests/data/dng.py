"""Small DNG files, written tag by tag: a mosaic of colors, and perhaps a JPEG preview."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_SIZES = {_BYTE: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _SRATIONAL: 8}
_LETTERS = {_BYTE: "B", _SHORT: "H", _LONG: "L", _RATIONAL: "L", _SRATIONAL: "l"}
# A color matrix near that of sRGB, from XYZ, in ten-thousandths.
_MATRIX = (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)

Tag = tuple[int, int, str | list[int]]


def dng(colors: NDArray[np.uint8], preview: bytes = b"", orientation: int = 1, **texts: str) -> bytes:
    """A DNG of colors (H, W, 3), mosaiced as RGGB at 16 bits.

    Args:
        colors: H and W are even.
        preview: A JPEG file that stands first in it, if not empty.
        orientation: As EXIF has it.
        texts: `make`, `model`, and `taken`, such as "2024:06:01 12:30:00".
    """
    height, width, _ = colors.shape
    mosaic = colors[..., 1].astype("<u2")
    mosaic[::2, ::2], mosaic[1::2, 1::2] = colors[::2, ::2, 0], colors[1::2, 1::2, 2]
    strip = (mosaic * 257).tobytes()
    named: list[Tag] = [
        (271, _ASCII, texts.get("make", "Canon")), (272, _ASCII, texts.get("model", "Canon Test 1")),
        (274, _SHORT, [orientation]), (50706, _BYTE, [1, 4, 0, 0]), (50707, _BYTE, [1, 1, 0, 0]),
        (50708, _ASCII, "Canon Test 1"), (50721, _SRATIONAL, [part for value in _MATRIX for part in (value, 10000)]),
        (50728, _RATIONAL, [1, 1] * 3), (50778, _SHORT, [21]),
    ]  # fmt: skip
    raw: list[Tag] = [
        (254, _LONG, [0]), (256, _LONG, [width]), (257, _LONG, [height]), (258, _SHORT, [16]), (259, _SHORT, [1]),
        (262, _SHORT, [32803]), (277, _SHORT, [1]), (278, _LONG, [height]), (279, _LONG, [len(strip)]),
        (284, _SHORT, [1]), (33421, _SHORT, [2, 2]), (33422, _BYTE, [0, 1, 1, 2]), (50717, _LONG, [65535]),
    ]  # fmt: skip
    content = bytearray(b"II*\0\0\0\0\0")
    raw.append((273, _LONG, [_put(content, strip)]))
    if "taken" in texts:
        named.append((34665, _LONG, [_directory(content, [(36867, _ASCII, texts["taken"])])]))
    if preview:
        named += [
            (254, _LONG, [1]), (256, _LONG, [width]), (257, _LONG, [height]), (258, _SHORT, [8, 8, 8]),
            (259, _SHORT, [7]), (262, _SHORT, [6]), (277, _SHORT, [3]), (278, _LONG, [height]),
            (273, _LONG, [_put(content, preview)]), (279, _LONG, [len(preview)]),
            (330, _LONG, [_directory(content, raw)]),
        ]  # fmt: skip
    else:
        named += raw
    content[4:8] = struct.pack("<L", _directory(content, named))
    return bytes(content)


def _put(content: bytearray, part: bytes) -> int:
    content.extend(bytes(-len(content) % 4))
    content.extend(part)
    return len(content) - len(part)


def _directory(content: bytearray, tags: list[Tag]) -> int:
    entries = b""
    for number, kind, values in sorted(tags, key=lambda tag: tag[0]):
        packed = (
            values.encode() + b"\0"
            if isinstance(values, str)
            else struct.pack(
                f"<{len(values)}{_LETTERS[kind]}",
                *values,
            )
        )
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<L", _put(content, packed))
        entries += struct.pack("<HHL", number, kind, len(packed) // _SIZES[kind]) + place
    return _put(content, struct.pack("<H", len(tags)) + entries + bytes(4))
