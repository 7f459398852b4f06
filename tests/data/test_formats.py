from __future__ import annotations

import struct
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.formats import IMAGE_SUFFIXES, SUFFIX_EXTRAS, eager_size, missing_extra
from mcip.data.images import media_type
from tests.images import file_bytes, noise_image
from tests.limits import with_little_memory

from .png import BOMB, chunk, claiming, icon, with_chunk
from .profiles import ADOBE_RGB, rgb_profile

HEIC = struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(40)
JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")


def without_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("content", "module", "name"),
    [
        (HEIC, "pillow_heif", "HEIC"),
        (HEIC.replace(b"ftypheic", b"ftypmif1"), "pillow_heif", "HEIC"),
        (b"\xff\x0a\x4f\x06\x00" + bytes(20), "pillow_jxl", "JPEG XL"),
        (JXL_CONTAINER + struct.pack(">I4s", 0, b"jxlc") + b"\xff\x0a\x4f\x06\x00", "pillow_jxl", "JPEG XL"),
    ],
)
def test_the_missing_extra_is_named(content: bytes, module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_extra(module, monkeypatch)
    for key in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, key, raising=False)
    with pytest.raises(UnreadableImage, match=rf"^{name} needs pip install 'mcip\[photos\]'$"):
        decode(content)


def test_avif_needs_no_extra_whatever_its_first_brand() -> None:
    content = file_bytes(noise_image(), "AVIF", quality=100)
    for brand in (b"avif", b"mif1"):
        assert decode(content.replace(b"ftypavif", b"ftyp" + brand)).size == (24, 16)


def test_every_suffix_is_read_or_names_its_extra() -> None:
    assert {".jpg", ".png", ".webp", ".avif", ".tif"} <= IMAGE_SUFFIXES
    assert {SUFFIX_EXTRAS[suffix] for suffix in (".heic", ".heif", ".hif", ".jxl")} == {"photos"}
    for suffix in SUFFIX_EXTRAS:
        assert missing_extra(suffix.upper()) == (None if suffix in IMAGE_SUFFIXES else "photos")
    assert missing_extra(".png") is None
    assert missing_extra(".docx") is None


@pytest.mark.parametrize(
    ("beginning", "size"),
    [
        ("ff0a4f060013880200040eb59f200000", (64, 64)),
        ("ff0a58098e0d001c88020054124dc060", (200, 300)),
        ("ff0a400ef40c00138802007092758079", (123, 457)),
        ("ff0a723ee8760d00138802008c606c14", (3000, 1999)),
        ("ff0a1a1c1d0013880200b4d0fb5dfa00", (1600, 900)),
    ],
)
def test_size_of_jpeg_xl_is_known_before_it_is_decoded(beginning: str, size: tuple[int, int]) -> None:
    stream = bytes.fromhex(beginning)
    exif = struct.pack(">I4s", 14, b"Exif") + b"\0\0\xff\x0a\xff\xff"
    wide_box = struct.pack(">I4sQ", 1, b"jxlc", 16 + len(stream)) + stream
    part = struct.pack(">I4sI", 12 + len(stream), b"jxlp", 0) + stream
    for content in (stream, JXL_CONTAINER + exif + wide_box, JXL_CONTAINER + part):
        assert eager_size(content) == ("JXL", size)


@pytest.mark.parametrize(
    "content", [JXL_CONTAINER, JXL_CONTAINER + bytes(100), b"\0\0\1\0", b"\0\0\1\0\1\0" + bytes(9)]
)
def test_cut_off_headers_are_unreadable(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Image.OPEN, "JXL", Image.OPEN["PNG"])
    with pytest.raises(UnreadableImage, match=r"damaged or cut off|not an image"):
        decode(content)


@pytest.mark.parametrize("side", [20, 300])
def test_icon_is_decoded(side: int) -> None:
    image = noise_image(0, side, side)
    np.testing.assert_array_equal(np.asarray(decode(icon(file_bytes(image)))), np.asarray(image))
    assert decode(file_bytes(noise_image(0, 32, 32), "ICO", bitmap_format="bmp", sizes=[(32, 32)])).size == (32, 32)


def test_size_of_an_icons_image_is_checked_before_it_is_decoded() -> None:
    for width, height, reason in (
        (13_300, 13_300, "too large"),
        (20_000, 20_000, "too large"),
        (1, 10**8, "too thin"),
    ):
        content = icon(claiming(width, height, color_type=6))
        assert reason in with_little_memory(50_000_000, decode, content)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 13_300, 26_600, 1, 32, 0, 0, 0, 0, 0, 0)
    assert "too large" in with_little_memory(50_000_000, decode, icon(bitmap))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "ICO", "WEBP"])
def test_media_type(kind: str) -> None:
    assert media_type(file_bytes(noise_image(0, 32, 32), kind)) == Image.MIME[kind]
    with pytest.raises(UnreadableImage):
        media_type(b"no image")


@pytest.mark.parametrize("after_pixels", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"name\0\0" + BOMB),
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        chunk(b"tEXt", b"Comment\0damaged")[:-1] + b"x",
        chunk(b"iCCP", b"name\0\7damaged"),
        b"".join(chunk(b"tEXt", b"Comment\0" + bytes(900_000)) for _ in range(80)),
    ],
    ids=["iCCP bomb", "zTXt bomb", "iTXt bomb", "wrong sum", "damaged profile", "70 MB of text"],
)
def test_texts_and_profiles_of_a_png_do_not_hide_its_pixels(extra: bytes, after_pixels: bool) -> None:
    content = with_chunk(file_bytes(noise_image()), extra, after_pixels)
    np.testing.assert_array_equal(np.asarray(decode(content)), np.asarray(noise_image()))


def test_a_text_that_cannot_be_read_does_not_cost_the_profile() -> None:
    content = file_bytes(noise_image(), icc_profile=rgb_profile(ADOBE_RGB))
    expected = np.asarray(decode(content))
    assert not np.array_equal(expected, np.asarray(noise_image()))
    damaged = with_chunk(content, chunk(b"zTXt", b"Comment\0\0" + BOMB))
    np.testing.assert_array_equal(np.asarray(decode(damaged)), expected)


def test_texts_that_unpack_to_much_take_little_memory() -> None:
    bombs = b"".join(chunk(b"zTXt", b"Comment\0\0" + BOMB) for _ in range(20))
    assert with_little_memory(20_000_000, decode, with_chunk(file_bytes(noise_image()), bombs)) == ""


def test_large_and_damaged_exif_does_not_matter() -> None:
    exif = b"MM\0*\0\0\0\x08\xff\xff" + bytes(range(256)) * 40_000
    content = with_chunk(file_bytes(noise_image()), chunk(b"eXIf", exif))
    np.testing.assert_array_equal(np.asarray(decode(content)), np.asarray(noise_image()))
    assert decode(file_bytes(noise_image(), "JPEG", exif=b"Exif\0\0" + exif[:65_000])).size == (24, 16)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_of_many_frames(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (255 if number == 0 else 0, number, 0)) for number in range(200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = file_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(content).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "TGA", "PPM", "AVIF", "JPEG2000"])
def test_damaged_files_decode_or_are_unreadable(kind: str) -> None:
    content = file_bytes(noise_image(), kind)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), random.integers(1, 6)):
            damaged[at] = random.integers(256)
        with suppress(UnreadableImage):
            assert decode(bytes(damaged[: random.integers(1, len(content) + 1)]), max_pixels=10**6).mode == "RGB"


def test_no_regular_file_is_unreadable(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "it is no file"), (tmp_path / "gone.png", "no file"), ("a\0b.png", "cannot read")):
        with pytest.raises(UnreadableImage, match=reason):
            decode(path)
    with (tmp_path / "huge.tif").open("wb") as stream:
        stream.truncate(3_000_000_000)
    assert "has 3,000,000,000 bytes" in with_little_memory(20_000_000, decode, tmp_path / "huge.tif")
