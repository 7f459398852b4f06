"""What counts as an image in a query, and the one decoder that all images go through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcip.retrieval.index import Index
from mcip.retrieval.query import as_list, is_image


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("a red mug", False), ("mug.JPG", True), ("id:mug", True), ("a/b", False), ("s3://bucket/mug.png", True),
        ("a/" + "long text " * 500, False), ("a/\x00b", False), (Path("notes"), True), (Image.new("L", (1, 1)), True),
    ],
)  # fmt: skip
def test_images_and_texts_are_told_apart(part: str | Path | Image.Image, expected: bool) -> None:
    assert is_image(part) == expected


def test_a_file_of_any_name_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "scan").write_bytes(b"")
    assert is_image(str(tmp_path / "scan"))


def test_parts_are_given_alone_or_in_sequences() -> None:
    image = Image.new("L", (1, 1))
    values: list[object] = [None, "a", Path("a"), image, ("a", image), []]
    assert [as_list(value) for value in values] == [
        [], ["a"], [Path("a")], [image], ["a", image], [],
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16", "1", "CMYK"])
def test_an_image_is_the_same_by_path_and_by_object(mode: str, index: Index, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4)).astype(np.uint8)
    image = Image.fromarray(pixels, "RGBA") if mode in ("RGBA", "LA", "P") else Image.fromarray(pixels[:, :, 0])
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257 // 3)
    elif mode != "RGBA":
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path, exif=exif)
    with Image.open(path) as opened:
        results = [index.search(image=query, k=36) for query in (path, str(path), path.as_uri(), opened, opened.copy())]
    assert all(found == results[0] for found in results)
