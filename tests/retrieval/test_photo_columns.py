"""EXIF and XMP as columns of an index: filled when files are read, kept when they move, filtered like any other."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest
from PIL import Image

from mcip.data.photo_metadata import PHOTO_COLUMNS
from mcip.retrieval.results import Results
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index
from mcip.stages.search import search
from tests.images import noise_image

CAMERAS = ("Canon EOS R5", "Canon EOS 90D", "ILCE-7M3")


def photograph(number: int, taken: str, damaged: bool = False) -> bytes:
    exif = Image.Exif()
    exif[272] = CAMERAS[number % 3]
    exif.get_ifd(0x8769).update({36867: taken, 36881: "+02:00"})
    stream = io.BytesIO()
    noise_image(number).save(stream, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" if damaged else exif.tobytes())
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photographs of six months, and one with damaged EXIF."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(photograph(number, f"2024:0{number + 3}:01 12:00:00"))
    (folder / "damaged.jpg").write_bytes(photograph(6, "", damaged=True))
    return folder


def test_columns_and_filters(photos: Path, base: Path, tmp_path: Path) -> None:
    db = str(tmp_path / "t.lance")
    index = build_index(str(photos), db, model=str(base), device="cpu").index
    assert set(PHOTO_COLUMNS.names) < set(index.columns)
    assert index.row("2.jpg")["taken"] == dt.datetime(2024, 5, 1, 12)
    assert index.row("2.jpg")["taken_offset"] == "+02:00"
    assert {index.row("damaged.jpg")[name] for name in PHOTO_COLUMNS.names} == {None}
    where = "taken >= '2024-06-01' and camera like 'Canon%'"
    found = search(db, "x", where=where, device="cpu")
    assert isinstance(found, Results)
    assert {hit.id for hit in found} == {"3.jpg", "4.jpg"}


def test_moved_changed_and_older_rows(photos: Path, base: Path, tmp_path: Path) -> None:
    db = str(tmp_path / "t.lance")
    build_index(str(photos), db, model=str(base), device="cpu")
    (photos / "0.jpg").rename(photos / "moved.jpg")
    (photos / "1.jpg").write_bytes(photograph(1, "2025:01:01 00:00:00"))
    index = build_index(str(photos), db, device="cpu").index
    assert index.row("moved.jpg")["camera"] == CAMERAS[0]
    assert index.row("1.jpg")["taken"] == dt.datetime(2025, 1, 1)


def test_columns_of_a_table_are_its_own(photos: Path, base: Path, tmp_path: Path) -> None:
    rows = "image,camera,taken\n" + "".join(f"photos/{number}.jpg,drawn,yesterday\n" for number in range(3))
    (tmp_path / "t.csv").write_text(rows)
    index = build_index(str(tmp_path / "t.csv"), str(tmp_path / "t.lance"), model=str(base), device="cpu").index
    assert {hit.metadata["camera"] for hit in index.browse()} == {"drawn"}
    assert "lens" not in open_table(index.uri).schema.names
