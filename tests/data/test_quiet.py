from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from PIL import Image

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.images import MAX_PIXELS
from tests.images import file_bytes, noise_image

from . import png


def transparent_palette() -> Image.Image:
    image = Image.new("P", (24, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 8))
    return image


def warning_files() -> list[bytes]:
    tiff = file_bytes(noise_image(), "TIFF", tiffinfo={270: "a" * 40})
    return [
        png.claiming(9_500, 9_500),
        file_bytes(noise_image(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12"),
        tiff.replace((40 + 1).to_bytes(4, "little"), (10**6).to_bytes(4, "little")),
        png.icon(file_bytes(noise_image(0, 20, 30))),
        file_bytes(transparent_palette(), transparency=bytes((0, 100))),
        file_bytes(noise_image()),
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
