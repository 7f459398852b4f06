from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mcip.core.errors import UnreadableImage
from mcip.data import decode, image_transform, to_rgb
from mcip.data.images import MAX_PIXELS
from tests.limits import with_little_memory

from . import png
from .conftest import file_bytes, picture
from .profiles import ADOBE_RGB, rgb_profile


def values(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_value(kind: str) -> None:
    image = picture()
    np.testing.assert_array_equal(values(decode(file_bytes(image, kind))), values(image))


def test_path_and_string_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_bytes(picture()))
    for given_as in (path, str(path)):
        np.testing.assert_array_equal(values(decode(given_as)), values(picture()))


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture().convert("L")
    decoded = values(decode(file_bytes(grey)))
    assert (decoded == np.asarray(grey)[..., None]).all()


def test_one_bit_becomes_black_and_white() -> None:
    assert set(np.unique(values(decode(file_bytes(picture().convert("1")))))) == {0, 255}


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
    upright = picture()
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
    content = file_bytes(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert decode(content).size == (24, 16)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = file_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert values(decode(content))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_unreadable(kind: str, share: float) -> None:
    content = file_bytes(picture(width=200, height=200), kind)
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
    content = file_bytes(picture(width=20, height=10))
    decode(content, max_pixels=200)
    with pytest.raises(UnreadableImage, match="20 x 10 pixels"):
        decode(content, max_pixels=199)


def test_postscript_is_never_run() -> None:
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_pillow_settings_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for content in (png.claiming(100_000, 100_000), file_bytes(picture())[:100], file_bytes(picture())):
        with suppress(UnreadableImage):
            decode(content, max_pixels=10**12)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_damaged_bytes_decode_or_are_unreadable(noise: bytes, position: int) -> None:
    content = bytearray(file_bytes(picture(), "JPEG"))
    content[position : position + len(noise)] = noise
    with suppress(UnreadableImage):
        assert decode(bytes(content), max_pixels=10**6).mode == "RGB"  # damage may claim a huge size


def transparent_palette() -> Image.Image:
    image = Image.new("P", (24, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 8))
    return image


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_bytes(picture(), "JPEG", exif=exif)


def kinds_of_files() -> dict[str, bytes]:
    rgb, ramp = picture(), np.linspace(0, 1, 384).reshape(16, 24)
    rgba = rgb.copy()
    rgba.putalpha(picture(1).convert("L"))
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
    content = file_bytes(picture(width=200, height=200), "JPEG")[:-500]
    with Image.open(io.BytesIO(content)) as opened, pytest.raises(UnreadableImage, match="cut off"):
        to_rgb(opened)


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
    content = file_bytes(picture(width=100, height=100), kind)
    decode(content, max_pixels=13_000)
    if fits:
        decode(content, max_pixels=10_000)
    else:
        with pytest.raises(UnreadableImage, match=r"100 x 100 pixels of its kind take .* MB"):
            decode(content, max_pixels=10_000)


@pytest.mark.parametrize("kind", ["rotated", "transparent", "progressive"])
def test_decoding_takes_no_more_memory_than_its_bound(kind: str) -> None:
    side = 4000
    image, options = Image.linear_gradient("L").resize((side, side)).convert("RGB"), {}
    if kind == "transparent":
        image.putalpha(200)
    elif kind == "rotated":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    else:
        options["progressive"] = True
    content = file_bytes(image, "PNG" if kind == "transparent" else "JPEG", **options)
    decode(file_bytes(picture()))
    assert with_little_memory(15 * side * side, decode, content) == ""


def warning_files() -> list[bytes]:
    tiff = file_bytes(picture(), "TIFF", tiffinfo={270: "a" * 40})
    return [
        png.claiming(9_500, 9_500),
        file_bytes(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12"),
        tiff.replace((40 + 1).to_bytes(4, "little"), (10**6).to_bytes(4, "little")),
        png.icon(file_bytes(picture(0, 20, 30))),
        file_bytes(transparent_palette(), transparency=bytes((0, 100))),
        file_bytes(picture()),
    ]


def test_threads_leave_the_filters_of_warnings_as_they_are() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)

        def decode_or_fail(content: bytes) -> str:
            with suppress(UnreadableImage):
                decode(content)
            return "ok"

        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(decode_or_fail, warning_files() * 20)) == {"ok"}
        assert warnings.filters == filters
        assert [str(warning.message) for warning in caught] == []
        # Outside of the decoder, Pillow warns as ever.
        for content in warning_files()[:4]:
            with suppress(OSError), Image.open(io.BytesIO(content)) as opened:
                opened.getexif()
        assert len(caught) >= 4
        assert all("PIL" in warning.filename for warning in caught)


@pytest.mark.filterwarnings("error")
def test_warnings_as_errors_do_not_hide_an_image() -> None:
    for content in warning_files()[1:]:
        assert decode(content).mode == "RGB"
    assert MAX_PIXELS > 9_500**2
