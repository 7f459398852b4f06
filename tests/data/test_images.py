from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from tests.images import file_bytes, noise_image

from . import png


def values(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_value(kind: str) -> None:
    image = noise_image()
    np.testing.assert_array_equal(values(decode(file_bytes(image, kind))), values(image))


def test_path_and_string_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_bytes(noise_image()))
    for given_as in (path, str(path)):
        np.testing.assert_array_equal(values(decode(given_as)), values(noise_image()))


def test_grey_becomes_three_equal_channels() -> None:
    grey = noise_image().convert("L")
    decoded = values(decode(file_bytes(grey)))
    assert (decoded == np.asarray(grey)[..., None]).all()


def test_one_bit_becomes_black_and_white() -> None:
    assert set(np.unique(values(decode(file_bytes(noise_image().convert("1")))))) == {0, 255}


def test_cmyk_jpeg_is_converted() -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    decoded = values(decode(file_bytes(red, "JPEG", quality=95)))
    np.testing.assert_allclose(decoded, np.broadcast_to([250, 10, 10], decoded.shape), atol=6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    decoded = values(decode(file_bytes(Image.fromarray(ramp), kind)))
    np.testing.assert_array_equal(decoded[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_and_transparency_are_scaled(channels: int) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16, 1).repeat(channels, axis=2)
    if channels != 3:
        ramp[..., -1] = 65535  # opaque
    decoded = values(decode(png.of_16_bits(ramp)))
    np.testing.assert_allclose(decoded, (ramp[..., :1] / 257).repeat(3, axis=2), atol=1)


def test_palette_is_resolved() -> None:
    image = Image.new("RGB", (8, 8), (10, 200, 30))
    decoded = values(decode(file_bytes(image.quantize(4))))
    np.testing.assert_allclose(decoded, np.broadcast_to([10, 200, 30], decoded.shape), atol=3)


def test_transparent_palette_is_put_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    decoded = values(decode(file_bytes(image, "PNG", transparency=0)))
    assert decoded[0, 0].tolist() == [0, 0, 255]
    assert decoded[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_put_on_white(mode: str) -> None:
    layer = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    layer.putpixel((1, 0), (0, 0, 0, 0))
    decoded = values(decode(file_bytes(layer.convert(mode))))
    assert decoded[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_half_transparent_black_is_grey() -> None:
    decoded = values(decode(file_bytes(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))))
    assert decoded[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = noise_image()
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(file_bytes(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(values(decoded), values(upright))


def test_damaged_exif_does_not_matter() -> None:
    content = file_bytes(noise_image(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert decode(content).size == (24, 16)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = file_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert values(decode(content))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_unreadable(kind: str, share: float) -> None:
    content = file_bytes(noise_image(width=200, height=200), kind)
    with pytest.raises(UnreadableImage):
        decode(content[: int(len(content) * share)])


def test_non_image_is_named_with_its_beginning() -> None:
    with pytest.raises(UnreadableImage, match=r"not an image \(20 bytes, starting with b'<!DOCTYP'\)"):
        decode(b"<!DOCTYPE html><html")


def test_empty_file() -> None:
    with pytest.raises(UnreadableImage, match="0 bytes"):
        decode(b"")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"no file .*gone\.jpg"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImage, match="it is no file"):
        decode(tmp_path)


def test_decompression_bomb_is_refused() -> None:
    with pytest.raises(UnreadableImage, match="bomb"):
        decode(png.claiming(100_000, 100_000))


@pytest.mark.filterwarnings("error")
def test_limit_of_pixels_is_the_callers() -> None:
    content = file_bytes(noise_image(width=20, height=10))
    decode(content, max_pixels=200)
    with pytest.raises(UnreadableImage, match="20 x 10 pixels"):
        decode(content, max_pixels=199)


def test_postscript_is_never_run() -> None:
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_pillow_settings_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for content in (png.claiming(100_000, 100_000), file_bytes(noise_image())[:100], file_bytes(noise_image())):
        with suppress(UnreadableImage):
            decode(content, max_pixels=10**12)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_damaged_bytes_decode_or_are_unreadable(noise: bytes, position: int) -> None:
    content = bytearray(file_bytes(noise_image(), "JPEG"))
    content[position : position + len(noise)] = noise
    with suppress(UnreadableImage):
        assert decode(bytes(content), max_pixels=10**6).mode == "RGB"  # damage may claim a huge size
