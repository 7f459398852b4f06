from __future__ import annotations

import zlib
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from mcip.core.errors import UnreadableImage
from mcip.data import decode, to_rgb
from tests.images import file_bytes, noise_image
from tests.limits import with_little_memory

from . import png


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_no_pixels_are_unreadable(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImage):
        decode(png.claiming(*size))
    with pytest.raises(UnreadableImage, match="no pixels"):
        to_rgb(Image.new("RGB", size))


def test_sides_of_a_million_pixels_are_too_thin() -> None:
    assert "too thin" in with_little_memory(50_000_000, decode, png.claiming(2_000_000, 1))


@pytest.mark.parametrize(("kind", "fits"), [("PNG", True), ("JPEG", True), ("WEBP", True), ("JPEG2000", False)])
def test_memory_of_a_format_is_bounded_by_the_limit_of_pixels(kind: str, fits: bool) -> None:
    content = file_bytes(noise_image(width=100, height=100), kind)
    decode(content, max_pixels=13_000)
    if fits:
        decode(content, max_pixels=10_000)
    else:
        with pytest.raises(UnreadableImage, match=r"100 x 100 pixels of its kind take .* MB"):
            decode(content, max_pixels=10_000)


@pytest.mark.parametrize("kind", ["rotated", "transparent", "progressive"])
def test_decoding_takes_no_more_memory_than_its_bound(kind: str) -> None:
    side = 4000
    image = Image.linear_gradient("L").resize((side, side)).convert("RGB")
    options: dict[str, Any] = {"progressive": True} if kind == "progressive" else {}
    if kind == "transparent":
        image.putalpha(200)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    content = file_bytes(image, "PNG" if kind == "transparent" else "JPEG", **options)
    decode(file_bytes(noise_image()))
    assert with_little_memory(15 * side * side, decode, content) == ""


@pytest.mark.parametrize("tile", [(6000, 6000), (2_000_000, 16)])
def test_tiles_larger_than_the_image_are_bounded(tile: tuple[int, int]) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {
        256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile[0], 323: tile[1], 324: 8, 325: 4
    }.items():  # fmt: skip
        info[tag] = value
    content = b"II*\0\x10\0\0\0" + zlib.compress(bytes(8))[:8] + info.tobytes(16)
    with pytest.raises(UnreadableImage, match=r"too large|too thin"):
        decode(content, max_pixels=10**7)


@pytest.mark.parametrize(("scans", "reason"), [(30, ""), (200, "more than 50 scans")])
def test_scans_of_a_progressive_jpeg_are_bounded(scans: int, reason: str) -> None:
    content = file_bytes(
        noise_image(width=64, height=64), "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 200
    )
    *parts, last = content.removesuffix(b"\xff\xd9").split(b"\xff\xda")
    many = b"\xff\xda".join([*parts, *[last] * scans]) + b"\xff\xd9"
    # What follows the image, for example a film, does not count.
    content = many + b"\xff\xda" * 1000
    if reason:
        with pytest.raises(UnreadableImage, match=reason):
            decode(content)
    else:
        assert decode(content).size == (64, 64)
