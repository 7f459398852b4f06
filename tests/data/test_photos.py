"""Photographs as cameras and telephones write them: turned once, and camera RAW by its preview."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.formats import IMAGE_SUFFIXES, SUFFIX_EXTRAS
from mcip.data.images import media_type
from mcip.data.raw import RAW_SUFFIXES, is_raw

from .dng import dng

BLUE, RED = (30, 30, 200), (200, 30, 30)
# The corner to which the top left one goes, down and across, by EXIF orientation.
# A tag that is put in the place of the orientation.
SPARE = 0x0113
CORNERS = {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}


def halves(height: int = 48, width: int = 64) -> np.ndarray:
    """Blue above the middle on the left, red elsewhere."""
    colors = np.full((height, width, 3), RED, np.uint8)
    colors[: height // 2, : width // 2] = BLUE
    return colors


def blue_corner(image: Image.Image) -> tuple[int, int]:
    pixels = np.asarray(image).astype(int)
    return next(
        (down, across) for down in (0, -1) for across in (0, -1) if pixels[down, across, 2] > pixels[down, across, 0]
    )


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", ["JPEG", "HEIF", "AVIF", "JXL", "WEBP"])
def test_orientation_turns_once(kind: str, orientation: int) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[0x0112] = exif[SPARE] = orientation
    stream = io.BytesIO()
    Image.fromarray(halves()).save(stream, kind, exif=exif.tobytes(), quality=95)
    content = stream.getvalue()
    if kind in ("HEIF", "AVIF") and orientation != 1:
        # The container says how to turn it, and EXIF says so as well: Pillow leaves that out of AVIF.
        assert b"irot" in content
        tags = exif.tobytes().removeprefix(b"Exif\0\0")[8:]
        entries = {tags[at + 1]: tags[at : at + 12] for at in (2, 14)}
        content = content.replace(entries[SPARE & 255], entries[0x12])
        assert entries[0x12] in content
    image = decode(content)
    assert image.size == ((48, 64) if orientation in (6, 8) else (64, 48))
    assert blue_corner(image) == CORNERS[orientation]


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("preview", ["none", "enough", "small", "damaged"])
def test_raw_is_its_preview_or_is_developed(preview: str, orientation: int) -> None:
    pytest.importorskip("rawpy")
    side = {"enough": (48, 64), "small": (12, 16)}.get(preview)
    stream = io.BytesIO()
    if side:
        Image.fromarray(halves(*side)).save(stream, "JPEG", quality=95)
    content = dng(
        halves(), stream.getvalue() or (b"\xff\xd8\xff\xe0 damaged" if preview == "damaged" else b""), orientation
    )
    image = decode(content)
    width, height = (64, 48) if preview == "enough" else (32, 24)
    assert image.size == ((height, width) if orientation in (6, 8) else (width, height))
    assert image.mode == "RGB"
    assert blue_corner(image) == CORNERS[orientation]
    assert media_type(content) == "image/x-dcraw"


def test_raw_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(UnreadableImage, match=r"^camera RAW needs pip install 'mcip\[photos\]'$"):
        decode(dng(halves()))
    assert {SUFFIX_EXTRAS[suffix] for suffix in RAW_SUFFIXES} == {"photos"}


def test_damaged_and_large_raw() -> None:
    pytest.importorskip("rawpy")
    content = dng(halves())
    with pytest.raises(UnreadableImage, match="64 x 48 pixels"):
        decode(content, max_pixels=1000)
    with pytest.raises(UnreadableImage, match=r"^damaged or cut off: Unsupported"):
        decode(b"FUJIFILMCCD-RAW " + bytes(200))
    for end in range(8, len(content), 500):
        try:
            assert decode(content[:end]).mode == "RGB"
        except UnreadableImage:
            continue


def test_other_tiffs_are_not_raw() -> None:
    exif = Image.Exif()
    exif[271] = "Scanner"
    for mode in ("RGB", "L", "I;16"):
        stream = io.BytesIO()
        Image.new(mode, (16, 8)).save(stream, "TIFF", exif=exif)
        assert not is_raw(stream.getvalue())
        assert decode(stream.getvalue()).size == (16, 8)
    assert ".dng" in SUFFIX_EXTRAS
    assert ".tif" in IMAGE_SUFFIXES
