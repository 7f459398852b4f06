"""`ImageTransform.read`: "exact" is open_clip's to the bit, "fast" almost the same, in less time."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageFilter

from mcip import models
from mcip.core.errors import ConfigError, UnreadableImage
from mcip.data import image_transform, read_table
from mcip.data import jpeg as jpeg_module
from mcip.data.images import decode, decode_reduced
from tests.images import noise_image

from .profiles import ADOBE_RGB, rgb_profile

REAL = Path(__file__).parents[3] / "shared" / "data" / "flickr8k.parquet"


def photo(seed: int, width: int, height: int) -> Image.Image:
    """An image with soft shapes, as photographs have them, and some noise."""
    coarse = noise_image(seed, 9, 7).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(coarse, noise_image(seed + 1, width, height).filter(ImageFilter.GaussianBlur(2)), 0.2)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture(params=["with simplejpeg", "without"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both decoders in turn."""
    if request.param == "without":
        monkeypatch.setattr(jpeg_module, "_simplejpeg", lambda: None)
    else:
        pytest.importorskip("simplejpeg")
    return str(request.param)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_exact_files_are_open_clips_to_the_last_bit(resize_mode: str) -> None:
    cfg = {"size": 32, "resize_mode": resize_mode, "fill_color": 90}
    expected, transform = image_transform_v2(PreprocessCfg(**cfg), is_train=False), image_transform(cfg)
    for content in (jpeg(photo(0, 200, 150)), jpeg(photo(1, 90, 300))):
        pixels, size = transform.read(content)
        image = Image.open(io.BytesIO(content))
        assert torch.equal(transform.finish(pixels[None])[0], expected(image))
        assert size == image.size


@pytest.mark.parametrize("name", ["model", "paper"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(640, 480), (301, 419), (64, 64), (1000, 70), (40, 33), (20, 900)])
def test_fast_pixels_are_close_to_the_exact_ones(
    name: Any, resize_mode: str, size: tuple[int, int], decoder: str
) -> None:
    cfg = {"size": 64, "resize_mode": resize_mode, "fill_color": 90}
    content = jpeg(photo(0, *size), quality=95)
    exact, fast = (image_transform(cfg, name, decode=way).read(content) for way in ("exact", "fast"))
    assert fast[1] == exact[1] == size
    assert (fast[0].shape, fast[0].dtype) == (exact[0].shape, torch.uint8)
    assert fast[0].is_contiguous()
    assert (fast[0].float() - exact[0].float()).abs().mean() < 3


def test_resizing_alone_differs_by_a_level_or_two() -> None:
    stream = io.BytesIO()
    photo(3, 640, 480).save(stream, "PNG")
    for interpolation in ("bicubic", "bilinear"):
        cfg = {"size": 224, "interpolation": interpolation}
        exact, fast = (image_transform(cfg, decode=way).read(stream.getvalue())[0] for way in ("exact", "fast"))
        assert (fast.int() - exact.int()).abs().max() <= 2


@pytest.mark.parametrize(("side", "part"), [(33, 1), (32, 2), (16, 4), (8, 8), (1, 8)])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_is_not_too_small(side: int, part: int, decoder: str) -> None:
    pixels, size = decode_reduced(jpeg(photo(0, 100, 65)), side)
    assert pixels.shape == (-(-65 // part), -(-100 // part), 3)
    assert size == (100, 65)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_simplejpeg_gives_pillows_pixels(options: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    content = jpeg(photo(5, 333, 217).convert(mode), **options)
    quick = decode_reduced(content, 50)[0]
    monkeypatch.setattr(jpeg_module, "_simplejpeg", lambda: None)
    assert np.array_equal(quick, decode_reduced(content, 50)[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, decoder: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(photo(2, 160, 80), exif=exif)
    pixels, size = decode_reduced(content, 20)
    whole = decode(content)
    assert size == whole.size
    expected = np.asarray(whole.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BOX), np.float32)
    assert np.abs(pixels - expected).mean() < 3


def test_profiles_are_converted(decoder: str) -> None:
    content = jpeg(photo(2, 160, 160), icc_profile=rgb_profile(ADOBE_RGB))
    plain = jpeg(photo(2, 160, 160))
    expected = np.asarray(decode(content).resize((40, 40), Image.Resampling.BOX), np.float32)
    pixels = decode_reduced(content, 40)[0]
    assert np.abs(pixels - expected).mean() < 4
    assert not np.array_equal(pixels, decode_reduced(plain, 40)[0])


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "too large", "too thin"])
def test_what_cannot_be_read_is_refused_alike(damage: str, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg(photo(4, 640, 480))
    if damage == "cut off":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = b""
    elif damage == "text":
        content = b"no image"
    elif damage == "too large":
        monkeypatch.setattr("mcip.data.transforms.decode", partial(decode, max_pixels=1000))
        monkeypatch.setattr("mcip.data.transforms.decode_reduced", partial(decode_reduced, max_pixels=1000))
    else:
        content = jpeg(Image.new("RGB", (60_000, 1)))
    messages = []
    for way in ("exact", "fast"):
        with pytest.raises(UnreadableImage) as caught:
            image_transform({"size": 224}, decode=way).read(content)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_other_ways_are_refused() -> None:
    with pytest.raises(ConfigError, match="decode is 'quick'"):
        image_transform({"size": 8}, decode="quick")  # type: ignore[arg-type]


@pytest.mark.skipif(not REAL.exists(), reason=f"needs the photographs of {REAL.name}")
def test_embeddings_of_photographs_stay_where_they_are(decoder: str) -> None:
    """The Toyshop base model's embeddings; 96-pixel photographs, whole and four to an image."""
    table, model = read_table(REAL, split="test"), models.load("toyshop")
    photos = [table.image(row).resize((96, 96)) for row in range(48)]
    whole = [jpeg(image.resize((384, 288), Image.Resampling.BICUBIC), quality=90) for image in photos[:16]]
    tiled = []
    for first in range(0, 48, 12):
        sheet = Image.new("RGB", (384, 288))
        for place in range(12):
            sheet.paste(photos[first + place], (96 * (place % 4), 96 * (place // 4)))
        tiled.append(jpeg(sheet, quality=90))
    vectors = []
    for way in ("exact", "fast"):
        transform = model.transform(decode=way)
        pixels = torch.stack([transform.read(content)[0] for content in (*whole, *tiled)])
        with torch.no_grad():
            vectors.append(torch.nn.functional.normalize(model.embed_pixels(transform.finish(pixels)), dim=-1))
    assert (vectors[0] * vectors[1]).sum(dim=-1).mean() > 0.999


def test_a_broken_decoder_is_not_taken_for_a_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ConfigError("simplejpeg is installed, but cannot be imported")

    monkeypatch.setattr(jpeg_module, "_simplejpeg", broken)
    with pytest.raises(ConfigError, match="cannot be imported"):
        image_transform({"size": 32}, decode="fast").read(jpeg(photo(0, 200, 150)))
