from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from mcip.data import decode, to_rgb
from tests.images import file_bytes, noise_image

from .profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    cmyk_profile,
    encoded,
    grey_profile,
    in_srgb,
    rgb_profile,
    srgb_profile,
)


def decoded(image: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    """The values that an image's file is decoded to; the PIL image of the file has the same."""
    content = file_bytes(image, kind, **options)
    result = decode(content)
    assert not result.info
    return np.asarray(result).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("colorants", [DISPLAY_P3, ADOBE_RGB])
def test_wide_rgb_is_converted(kind: str, colorants: np.ndarray) -> None:
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = Image.new("RGB", (16, 16), (40, 200, 90))
    values = decoded(image, kind, icc_profile=rgb_profile(colorants), **options)
    expected = in_srgb(np.array([40, 200, 90]), colorants)
    assert np.abs(expected - [40, 200, 90]).max() > 20
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=3)


def test_every_color_of_a_wide_space() -> None:
    image = noise_image(3, 40, 40)
    expected = in_srgb(np.asarray(image), DISPLAY_P3)
    np.testing.assert_allclose(decoded(image, icc_profile=rgb_profile(DISPLAY_P3)), expected, atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_no_profile_and_srgb_give_the_values_of_the_file(kind: str) -> None:
    content = file_bytes(noise_image(), kind)
    with_profile = decode(file_bytes(noise_image(), kind, icc_profile=srgb_profile()))
    np.testing.assert_array_equal(np.asarray(with_profile), np.asarray(decode(content)))


def test_grey_profile_is_converted() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    values = decoded(image, icc_profile=grey_profile(1.8))
    assert (values == values[..., :1]).all()
    expected = encoded((np.arange(256) / 255) ** 1.8)
    np.testing.assert_allclose(values[..., 0].ravel(), expected, atol=3)


def test_cmyk_profile_is_converted() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    values = decoded(image, "TIFF", icc_profile=cmyk_profile(cyan=(120, 180, 60)))
    lab = Image.new("LAB", (1, 1), (120, 180, 60))
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    expected = np.asarray(ImageCms.applyTransform(lab, transform))[0, 0]
    assert expected[0] > 100  # without the profile, cyan has no red
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=4)
    white = decoded(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "TIFF", icc_profile=cmyk_profile(cyan=(120, 180, 60)))
    assert (white == 255).all()


def test_lab_has_the_profile_of_its_mode() -> None:
    values = np.asarray(to_rgb(Image.new("LAB", (2, 2), (255, 128, 128))))
    assert (values >= 254).all()


def test_palette_and_transparency_are_converted_too() -> None:
    profile = rgb_profile(ADOBE_RGB)
    expected = in_srgb(np.array([40, 200, 90]), ADOBE_RGB)
    layer = Image.new("RGBA", (2, 1), (40, 200, 90, 255))
    layer.putpixel((1, 0), (40, 200, 90, 0))
    values = decoded(layer, icc_profile=profile)
    np.testing.assert_allclose(values[0], np.stack([expected, np.full(3, 255)]), atol=3)
    palette = Image.new("P", (1, 1))
    palette.putpalette([40, 200, 90])
    np.testing.assert_allclose(decoded(palette, icc_profile=profile)[0, 0], expected, atol=3)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", srgb_profile()[:200], rgb_profile(ADOBE_RGB)[:150], grey_profile(1.0), cmyk_profile((1, 2, 3))],
    ids=["junk", "cut off", "without tags", "grey", "cmyk"],
)
def test_damaged_profiles_and_those_of_other_channels_are_passed_over(profile: bytes) -> None:
    np.testing.assert_array_equal(decoded(noise_image(), icc_profile=profile), np.asarray(noise_image()))


def test_a_pil_image_is_converted_once() -> None:
    image = noise_image()
    image.info["icc_profile"] = rgb_profile(ADOBE_RGB)
    once = to_rgb(image)
    assert to_rgb(once) is once
    np.testing.assert_array_equal(np.asarray(once), decoded(noise_image(), icc_profile=image.info["icc_profile"]))


def test_threads_share_transforms() -> None:
    contents = [
        file_bytes(noise_image(seed, 300, 200), icc_profile=rgb_profile(space))
        for seed in range(4)
        for space in (ADOBE_RGB, DISPLAY_P3)
    ]
    expected = [np.asarray(decode(content)) for content in contents]
    with ThreadPoolExecutor(4) as threads:
        for actual, values in zip(threads.map(decode, contents * 4), expected * 4, strict=True):
            np.testing.assert_array_equal(np.asarray(actual), values)
