from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.thumbnails import thumbnail
from tests.images import file_bytes, noise_image


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((60, 40), 30, (30, 20)), ((40, 60), 30, (20, 30)), ((20, 10), 30, (20, 10)), ((5000, 1), 50, (50, 1))],
)
def test_thumbnail_is_a_jpeg_no_larger_than_its_side(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    image = noise_image(0, *size)
    with Image.open(io.BytesIO(thumbnail(image, side))) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", expected)
    assert image.size == size


def test_thumbnail_of_any_image_is_that_of_its_decoded_file() -> None:
    layer = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    assert thumbnail(layer, 30) == thumbnail(decode(file_bytes(layer)), 30)
    assert np.asarray(decode(thumbnail(layer, 30))).min() > 250


def test_unreadable_image_has_no_thumbnail() -> None:
    with pytest.raises(UnreadableImage):
        thumbnail(Image.new("RGB", (0, 3)), 30)
