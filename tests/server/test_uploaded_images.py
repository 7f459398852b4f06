from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    "image",
    [Image.new("RGB", (1, 2_000_000)), Image.new("L", (2_000_000, 1)), Image.fromarray(np.full((8, 8), np.nan, "f4"))],
    ids=["tall", "wide", "without a finite value"],
)
def test_uploads_without_usable_pixels_are_refused(client: TestClient, image: Image.Image) -> None:
    content = file_of(image, "TIFF" if image.mode == "F" else "PNG")
    response = client.post("/search", files={"image": ("a", content, "image/png")})
    assert response.status_code == 415
    # The server keeps answering.
    good = client.post("/search", files={"image": ("a.png", file_of(Image.new("RGB", (70, 50))), "image/png")})
    assert good.status_code == 200
