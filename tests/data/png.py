"""PNG files that Pillow does not write, put together from chunks."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A chunk of text or a profile that unpacks to 50 MB.
BOMB = zlib.compress(bytes(50_000_000))


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def claiming(width: int, height: int, depth: int = 8, color_type: int = 0) -> bytes:
    """A PNG of a few bytes that claims a size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of uint16 (H, W, C)."""
    height, width, channels = values.shape
    color_type = {2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def with_chunk(content: bytes, extra: bytes, after_pixels: bool = False) -> bytes:
    """A PNG with one more chunk, before or after its pixels."""
    at = content.index(b"IEND") - 4 if after_pixels else content.index(b"IDAT") - 4
    return content[:at] + extra + content[at:]


def icon(content: bytes) -> bytes:
    """A Windows icon that holds a PNG; its directory says 256 x 256."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(content), 22) + content
