from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode, to_rgb
from tests.images import file_bytes
from tests.limits import with_little_memory

RAMP = np.linspace(0, 1, 1024).reshape(32, 32)


def grey_levels(values: Any, dtype: Any = np.float32) -> np.ndarray:
    """The grey levels that values of a type are decoded to, by file and as a PIL image."""
    image = Image.fromarray(np.asarray(values).astype(dtype))
    decoded = np.asarray(decode(file_bytes(image, "TIFF")))
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), decoded)
    assert (decoded == decoded[..., :1]).all()
    return decoded[..., 0].astype(int)


def with_outliers(values: np.ndarray, *outliers: float) -> np.ndarray:
    changed = values.astype(np.float64).copy()
    changed.ravel()[: len(outliers)] = outliers
    return changed


@pytest.mark.parametrize("outlier", [1.001, 1e30, -9999.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 7.7])
def test_one_outlier_changes_no_other_value_of_a_float_image(outlier: float, top: float) -> None:
    expected = grey_levels(RAMP * top)
    actual = grey_levels(with_outliers(RAMP * top, outlier))
    np.testing.assert_allclose(actual.ravel()[1:], expected.ravel()[1:], atol=3)
    np.testing.assert_allclose(actual.ravel()[1:], RAMP.ravel()[1:] * 255, atol=5)


@pytest.mark.parametrize("outlier", [-9999, -32768, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("top", [255, 65535, 1_000_000])
def test_one_outlier_changes_no_other_value_of_an_integer_image(outlier: int, top: int) -> None:
    actual = grey_levels(with_outliers(RAMP * top, outlier), np.int32)
    np.testing.assert_allclose(actual.ravel()[1:], RAMP.ravel()[1:] * 255, atol=5)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_from_0_to_255_and_to_65535_are_those_of_8_and_16_bits(dtype: Any) -> None:
    for top in (255, 65535):
        # Not stretched: the darkest and the brightest values are not those of the range.
        values = (0.25 + RAMP / 2) * top
        np.testing.assert_allclose(grey_levels(values, dtype), (0.25 + RAMP / 2) * 255, atol=1)


def test_16_bit_integers_have_the_range_of_their_type() -> None:
    dark = (RAMP * 4095).astype(np.uint16)
    np.testing.assert_array_equal(grey_levels(dark, np.uint16), np.rint(dark / 257))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_byte_order_of_16_bits_does_not_matter(mode: str) -> None:
    values = (RAMP * 65535).astype("<u2" if mode != "I;16B" else ">u2")
    image = Image.frombytes(mode, (32, 32), values.tobytes())
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 0], np.rint(values.astype(float) / 257))


@pytest.mark.parametrize("scale", [(0.0, 3.0), (-1.0, 2.0), (0.0, 10.0), (-3.0, 903.0), (100_000.0, 5_000.0)])
def test_other_ranges_are_stretched(scale: tuple[float, float]) -> None:
    low, span = scale
    np.testing.assert_allclose(grey_levels(low + RAMP * span), RAMP * 255, atol=4)


def test_slight_overshoot_of_many_values_does_not_darken() -> None:
    np.testing.assert_allclose(grey_levels(RAMP * 1.05), RAMP * 255, atol=5)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_few_values(size: tuple[int, int]) -> None:
    values = np.linspace(0, 1, size[0] * size[1]).reshape(size)
    np.testing.assert_allclose(grey_levels(values), values * 255, atol=1)


@pytest.mark.parametrize("value", [0.0, 0.5, 7.0, -4.0, 1e9])
def test_constant_image(value: float) -> None:
    levels = grey_levels(np.full((4, 4), value))
    assert len(np.unique(levels)) == 1
    assert levels[0, 0] == (128 if value == 0.5 else 0)


@pytest.mark.parametrize("levels", [(0, 1), (-1, 1), (-9999, 0), (-1, 0, 1), (0, 0.5, 1)])
def test_masks_of_few_levels_keep_them_apart(levels: tuple[float, ...]) -> None:
    decoded = grey_levels(np.resize(levels, (30, 30)))
    expected = np.linspace(0, 255, len(levels))
    np.testing.assert_allclose(np.unique(decoded), expected, atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_finite_value_is_unreadable(value: float) -> None:
    with pytest.raises(UnreadableImage, match="none of its values is a finite number"):
        grey_levels(np.full((4, 4), value))


def test_missing_values_as_nan_are_black() -> None:
    values = RAMP.copy()
    values[:10] = np.nan
    levels = grey_levels(values)
    assert (levels[:10] == 0).all()
    np.testing.assert_allclose(levels[10:], RAMP[10:] * 255, atol=1)


@pytest.mark.parametrize(("missing", "dtype"), [(-9999, np.float32), (-3.4e38, np.float32), (2**31 - 1, np.int32)])
def test_many_values_far_from_all_others_cannot_be_decided(missing: float, dtype: Any) -> None:
    values = RAMP * 200
    values[:10] = missing
    with pytest.raises(UnreadableImage, match=r"31% of its values are .*, the others lie between .* cannot be decided"):
        grey_levels(values, dtype)


def test_large_images_are_judged_by_pixels_all_over() -> None:
    values = np.zeros((3000, 1500), np.float32)
    values[1500:] = 40.0
    assert np.unique(grey_levels(values)).tolist() == [0, 40]


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_decoding_takes_about_as_much_memory_as_the_image(dtype: Any) -> None:
    image = Image.fromarray((np.arange(16_000_000).reshape(4000, 4000) % 60_000).astype(dtype))
    content = file_bytes(image, "TIFF", compression="tiff_deflate")
    decode(content[:])  # what is imported at the first image is not counted
    assert with_little_memory(200_000_000, decode, content) == ""
