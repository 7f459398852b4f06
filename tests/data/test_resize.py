from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import image_transform
from tests.images import noise_image
from tests.limits import with_little_memory


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(1, 130), (3, 1900), (7, 701), (300, 301), (30, 3001), (223, 20_001), (225, 20_003)])
@pytest.mark.parametrize("turned", [False, True])
def test_thin_images_are_open_clips_to_the_last_bit(size: tuple[int, int], interpolation: str, turned: bool) -> None:
    cfg = {"size": 224, "interpolation": interpolation}
    expected = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    image = noise_image(0, *(reversed(size) if turned else size))
    assert torch.equal(image_transform(cfg)(image), expected(image))


@pytest.mark.parametrize("resize_mode", ["longest", "squash"])
def test_thin_images_of_other_modes_are_open_clips_too(resize_mode: str) -> None:
    cfg = {"size": 224, "resize_mode": resize_mode}
    expected = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    for size in ((3, 1000), (1000, 3), (1, 440), (20, 8000)):
        image = noise_image(0, *size)
        assert torch.equal(image_transform(cfg)(image), expected(image))


@pytest.mark.parametrize("size", [(10, 6000), (6000, 10), (5000, 1)])
def test_thin_images_take_little_memory(size: tuple[int, int]) -> None:
    transform = image_transform({"size": 224})
    transform.prepare(noise_image())
    assert with_little_memory(100_000_000, transform.prepare, Image.new("RGB", size)) == ""


@pytest.mark.parametrize(
    ("cfg", "name", "size"),
    [
        ({"size": 224}, "model", (1, 10_000)),
        ({"size": 224}, "model", (30_000, 1)),
        ({"size": 224}, "model", (1, 1_000_000)),
        ({"size": 448}, "model", (2, 2_000)),
        ({"size": 224, "resize_mode": "longest"}, "model", (1, 10_000)),
        ({"size": 224, "resize_mode": "longest"}, "model", (450, 1)),
        ({"size": 224, "resize_mode": "squash"}, "model", (1, 1_000_000)),
        ({"size": 224}, "paper", (1, 1_000_000)),
        ({"size": 224}, "paper", (2_000_000, 1)),
    ],
)
def test_too_thin_images_are_refused_before_memory_is_taken(cfg: Any, name: Any, size: tuple[int, int]) -> None:
    transform = image_transform(cfg, name)
    transform.prepare(noise_image())
    image = Image.new("RGB", size)
    with pytest.raises(UnreadableImage, match=f"too thin: {size[0]} x {size[1]} pixels"):
        transform.prepare(image)
    assert "too thin" in with_little_memory(40_000_000, transform.prepare, image)


@pytest.mark.parametrize("size", [(300, 60_000), (60_000, 300), (3000, 2000)])
@pytest.mark.parametrize("name", ["model", "paper"])
def test_large_images_are_not_too_thin(size: tuple[int, int], name: Any) -> None:
    pixels = image_transform({"size": 224}, name).prepare(Image.new("RGB", size, (1, 2, 3)))
    assert np.unique(pixels.numpy()).tolist() == [1, 2, 3]
