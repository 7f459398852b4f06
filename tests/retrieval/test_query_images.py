from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mcip.retrieval.query import load_image


def test_a_query_file_and_its_pil_image_give_the_same_pixels(tmp_path: Path) -> None:
    layer = Image.linear_gradient("L").convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").rotate(90))
    exif = Image.Exif()
    exif[0x0112] = 6
    layer.save(tmp_path / "layer.png", exif=exif)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(tmp_path / "grey.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as opened:
            np.testing.assert_array_equal(np.asarray(load_image(opened)), np.asarray(load_image(path)))
