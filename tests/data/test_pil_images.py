from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode, image_transform, to_rgb
from tests.images import file_bytes, noise_image

from .profiles import ADOBE_RGB, rgb_profile


def values(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (24, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 8))
    return image


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_bytes(noise_image(), "JPEG", exif=exif)


def kinds_of_files() -> dict[str, bytes]:
    rgb, ramp = noise_image(), np.linspace(0, 1, 384).reshape(16, 24)
    rgba = rgb.copy()
    rgba.putalpha(noise_image(1).convert("L"))
    grey16 = Image.fromarray((ramp * 65535).astype(np.uint16))
    return {
        "RGB": file_bytes(rgb),
        "RGBA": file_bytes(rgba),
        "RGBA WebP": file_bytes(rgba, "WEBP", lossless=True),
        "LA": file_bytes(rgba.convert("LA")),
        "L": file_bytes(rgb.convert("L")),
        "L with one transparent level": file_bytes(rgb.convert("L"), transparency=3),
        "RGB with one transparent color": file_bytes(rgb, transparency=rgb.getpixel((0, 0))),
        "1": file_bytes(rgb.convert("1")),
        "P": file_bytes(rgb.quantize(16)),
        "P with one transparent color": file_bytes(transparent_palette(), transparency=0),
        "P with transparent colors": file_bytes(transparent_palette(), transparency=bytes((0, 100))),
        "GIF": file_bytes(transparent_palette(), "GIF", transparency=0),
        "CMYK": file_bytes(rgb.convert("CMYK"), "JPEG"),
        "YCbCr": file_bytes(rgb.convert("YCbCr"), "TIFF"),
        "LAB": file_bytes(Image.new("LAB", (4, 4), (150, 140, 90)), "TIFF"),
        "16-bit grey": file_bytes(grey16),
        "16-bit grey, big endian": file_bytes(Image.fromarray((ramp * 65535).astype(">u2")), "TIFF"),
        "int32": file_bytes(Image.fromarray((ramp * 200).astype(np.int32)), "TIFF"),
        "float": file_bytes(Image.fromarray((ramp * 1.001).astype(np.float32)), "TIFF"),
        "with a profile": file_bytes(rgb, icc_profile=rgb_profile(ADOBE_RGB)),
        **{f"turned {turn}": rotated(turn) for turn in range(2, 9)},
    }


@pytest.mark.parametrize("kind", kinds_of_files())
def test_a_file_and_its_pil_image_give_the_same_pixels(kind: str) -> None:
    content = kinds_of_files()[kind]
    expected = decode(content)
    with Image.open(io.BytesIO(content)) as opened:
        mode, size = opened.mode, opened.size
        np.testing.assert_array_equal(values(to_rgb(opened)), values(expected))
        assert image_transform({"size": 8})(opened).equal(image_transform({"size": 8})(expected))
        # The image that was given stays as it is.
        assert (opened.mode, opened.size) == (mode, size)
        np.testing.assert_array_equal(values(to_rgb(opened)), values(expected))
    assert to_rgb(expected) is expected


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "HSV", "RGBX"])
def test_modes_that_no_file_has(mode: str) -> None:
    layer = Image.new("RGBA", (2, 1), (200, 200, 200, 255))
    image = {"La": layer.convert("LA").convert("La"), "PA": layer.convert("P").convert("PA")}.get(mode)
    image = image or (layer.convert("RGB").convert(mode) if mode in ("HSV", "RGBX") else layer.convert(mode))
    np.testing.assert_allclose(values(to_rgb(image)), 200, atol=3)


def test_pil_image_of_a_file_that_is_cut_off_is_unreadable() -> None:
    content = file_bytes(noise_image(width=200, height=200), "JPEG")[:-500]
    with Image.open(io.BytesIO(content)) as opened, pytest.raises(UnreadableImage, match="cut off"):
        to_rgb(opened)
