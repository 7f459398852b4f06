from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from mcip.core.errors import ConfigError
from mcip.data import image_transform
from mcip.data.transforms import jitter_and_normalise
from tests.images import noise_image

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def random_pixels(count: int, side: int, seed: int = 0, low: int = 0, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("fill_color", [0, 127])
def test_model_evaluation_is_open_clips_to_the_last_bit(resize_mode: str, interpolation: str, fill_color: int) -> None:
    cfg = {
        "size": 32,
        "mode": "RGB",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": interpolation,
        "resize_mode": resize_mode,
        "fill_color": fill_color,
    }
    expected = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    transform = image_transform(cfg)
    for seed, (width, height) in enumerate([(32, 32), (50, 41), (20, 77), (33, 32), (7, 5)]):
        image = noise_image(seed, width, height)
        assert torch.equal(transform(image), expected(image))


def test_batch_is_the_same_as_one_by_one() -> None:
    transform = image_transform({"size": 16}, "paper")
    images = [noise_image(seed) for seed in range(3)]
    batch = transform.finish(torch.stack([transform.prepare(image) for image in images]))
    assert torch.equal(batch, torch.stack([transform(image) for image in images]))


def test_paper_evaluation_squashes_and_crops_the_center() -> None:
    image = noise_image(0, 60, 45)
    transform = image_transform({"size": 32, "mean": MEAN, "std": STD}, "paper")
    assert transform.prepared_size == 36
    squashed = v2.resize(image, [36, 36], InterpolationMode.BICUBIC)
    expected = v2.normalize(v2.to_dtype(v2.pil_to_tensor(squashed), scale=True)[:, 2:34, 2:34], list(MEAN), list(STD))
    torch.testing.assert_close(transform(image), expected)


@pytest.mark.parametrize("name", ["model", "paper"])
def test_equal_generators_give_equal_results(name: Any) -> None:
    transform = image_transform({"size": 16}, name, train=True)
    pixels = random_pixels(40, transform.prepared_size)
    first, again, other = (transform.finish(pixels, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert first.shape == (40, 3, 16, 16)


def test_model_training_flips_only() -> None:
    transform = image_transform({"size": 16}, train=True)
    plain = image_transform({"size": 16})
    pixels = random_pixels(64, 16)
    result, upright = transform.finish(pixels, torch.Generator().manual_seed(0)), plain.finish(pixels)
    flipped = [torch.equal(one, other.flip(2)) for one, other in zip(result, upright, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(result, upright, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 16 < sum(flipped) < 48


def test_training_crops_reach_every_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that hold their own row and column tell which window was taken, and whether it was mirrored."""
    monkeypatch.setattr("mcip.data.transforms.JITTER", 0.0)
    transform = image_transform({"size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}, "paper", train=True)
    side = transform.prepared_size
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.stack([row, column, column]).to(torch.uint8).expand(400, 3, side, side)
    windows = transform.finish(pixels, torch.Generator().manual_seed(1)).mul(255).round().int()
    positions = set()
    for window in windows:
        top, left, right = int(window[0, 0, 0]), int(window[1, 0, 0]), int(window[1, 0, -1])
        expected = pixels[0, :, top : top + 16, min(left, right) : min(left, right) + 16]
        assert torch.equal(window, (expected.flip(2) if left > right else expected).int())
        positions.add((top, min(left, right), left > right))
    assert len(positions) == 3 * 3 * 2


def blend(one: Tensor, other: Tensor | float, factor: float) -> Tensor:
    return factor * one + (1 - factor) * other


def naive_jitter(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation, one image at a time, clamped once at the end."""
    images = []
    for image, (brightness, contrast, saturation) in zip(pixels, factors.tolist(), strict=True):
        values = image.double() / 255 * brightness
        values = blend(values, v2.rgb_to_grayscale(values).mean(), contrast)
        values = blend(values, v2.rgb_to_grayscale(values), saturation)
        images.append(v2.normalize(values.clamp(0, 1), list(MEAN), list(STD)))
    return torch.stack(images)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(*[st.floats(0.6, 1.4)] * 3), min_size=1, max_size=4),
)
def test_jitter_is_the_naive_loop(seed: int, factors: list[tuple[float, float, float]]) -> None:
    pixels = random_pixels(len(factors), 9, seed)
    result = jitter_and_normalise(pixels, torch.tensor(factors), MEAN, STD)
    torch.testing.assert_close(result.double(), naive_jitter(pixels, torch.tensor(factors)), atol=1e-3, rtol=0)


def test_jitter_is_torchvisions_on_mid_range_images() -> None:
    pixels = random_pixels(20, 12, low=90, high=150)
    factors = 0.8 + 0.4 * torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    expected = []
    for image, (brightness, contrast, saturation) in zip(pixels, factors.tolist(), strict=True):
        values = v2.adjust_brightness(v2.to_dtype(image, scale=True), brightness)
        values = v2.adjust_saturation(v2.adjust_contrast(values, contrast), saturation)
        expected.append(v2.normalize(values, list(MEAN), list(STD)))
    result = jitter_and_normalise(pixels, factors, MEAN, STD)
    torch.testing.assert_close(result, torch.stack(expected), atol=1e-3, rtol=0)


def test_memory_format_of_the_pixels_does_not_matter() -> None:
    pixels = random_pixels(5, 18)
    for train in (False, True):
        transform = image_transform({"size": 16}, "paper", train)
        results = [
            transform.finish(given_as, torch.Generator().manual_seed(0))
            for given_as in (pixels, pixels.to(memory_format=torch.channels_last))
        ]
        torch.testing.assert_close(results[1], results[0])


def test_jitter_of_one_changes_nothing() -> None:
    pixels = random_pixels(5, 8)
    expected = v2.normalize(v2.to_dtype(pixels, scale=True), list(MEAN), list(STD))
    torch.testing.assert_close(jitter_and_normalise(pixels, torch.ones(5, 3), MEAN, STD), expected, atol=1e-5, rtol=0)


def test_training_batch_is_the_same_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = image_transform({"size": 16}, "paper", train=True)
    pixels = random_pixels(11, transform.prepared_size)
    results = []
    for values in (1, 3000, 10**9):
        monkeypatch.setattr("mcip.data.transforms._CACHED_VALUES", values)
        results.append(transform.finish(pixels, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@pytest.mark.parametrize("name", ["model", "paper"])
@pytest.mark.parametrize("train", [False, True])
def test_empty_batch(name: Any, train: bool) -> None:
    transform = image_transform({"size": 16}, name, train)
    side = transform.prepared_size
    assert transform.finish(torch.empty(0, 3, side, side, dtype=torch.uint8)).shape == (0, 3, 16, 16)


def test_single_mean_and_std_count_for_all_channels() -> None:
    cfg: dict[str, Any] = {"size": 8, "mean": 0.5, "std": 0.25}
    expected = image_transform({"size": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3})(noise_image())
    assert torch.equal(image_transform(cfg)(noise_image()), expected)


def test_other_modes_are_converted() -> None:
    for transform in (image_transform({"size": 8}), image_transform({"size": 8}, "paper")):
        assert transform(Image.new("L", (9, 9))).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("cfg", "name", "message"),
    [
        ({"sise": 8}, "model", "did you mean 'size'"),
        ({"size": 8}, "papr", "did you mean 'paper'"),
        ({"size": (8, 9)}, "model", "square"),
        ({"size": 8, "resize_mode": "stretch"}, "model", "cannot use preprocess_cfg"),
        ({"size": 8, "interpolation": "nearest"}, "paper", "cannot use preprocess_cfg"),
    ],
)
def test_wrong_configuration(cfg: dict[str, Any], name: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        image_transform(cfg, name)


@pytest.mark.parametrize("pixels", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 9, 8, dtype=torch.uint8)])
def test_finish_refuses_what_prepare_did_not_make(pixels: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"uint8 pixels of shape \(B, 3, 8, 8\)"):
        image_transform({"size": 8}).finish(pixels)
