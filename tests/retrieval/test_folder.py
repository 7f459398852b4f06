"""The files of folders as people have them: odd names, odd formats, links, depths, and what the system puts there."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcip.core.errors import DataError
from mcip.data.formats import IMAGE_SUFFIXES, SUFFIX_EXTRAS
from mcip.retrieval.folder import list_folder, summary
from mcip.retrieval.index import Index
from mcip.retrieval.listing import list_images
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index
from tests.data.dng import dng


@pytest.fixture
def image(album: Path) -> bytes:
    return min(album.rglob("*.jpg")).read_bytes()


@pytest.fixture
def folder(tmp_path: Path, image: bytes) -> Iterator[Path]:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "0.jpg").write_bytes(image)
    yield root
    # Some are too deep for `shutil.rmtree`.
    subprocess.run(["rm", "-rf", root], check=True)


def add(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def test_what_the_system_puts_there_is_left_out(folder: Path, image: bytes) -> None:
    for name in (
        "._0.jpg",
        ".Trash/a.jpg",
        "__MACOSX/a.jpg",
        "a/.hidden/b.jpg",
        "a/@eaDir/0.jpg",
        "$RECYCLE.BIN/x.jpg",
    ):
        add(folder, name, image)
    for source in (str(folder), folder.as_uri()):
        listing = list_images(source)
        assert (listing.ids, listing.skipped) == (["0.jpg"], {})


@pytest.fixture
def no_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `photos` is not installed."""
    suffixes = IMAGE_SUFFIXES - SUFFIX_EXTRAS.keys()
    monkeypatch.setattr("mcip.data.formats.IMAGE_SUFFIXES", suffixes)
    monkeypatch.setattr("mcip.retrieval.folder.IMAGE_SUFFIXES", suffixes)


def test_formats_that_are_not_read_are_named(folder: Path, no_photos: None) -> None:
    for name in ("a/x.HEIC", "a/y.heic", "z.CR2", "notes.txt", "README"):
        add(folder, name, b"x")
    for source in (str(folder), folder.as_uri()):
        listing = list_images(source)
        assert listing.ids == ["0.jpg"]
        assert listing.closed == {
            "a/x.HEIC": ".heic is read with an extra that is not installed: pip install 'mcip[photos]'",
            "a/y.heic": ".heic is read with an extra that is not installed: pip install 'mcip[photos]'",
            "z.CR2": ".cr2 is read with an extra that is not installed: pip install 'mcip[photos]'",
        }
        assert listing.skipped == {
            "notes.txt": "not an image by its suffix (.txt)",
            "README": "not an image by its suffix (no suffix)",
        }
    assert summary(listing.closed) == "2 .heic, 1 .cr2 (some are read with pip install 'mcip[photos]')"
    (folder / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"none of its 5 files is one \(2 .heic, .*pip install 'mcip\[photos\]'\)"):
        list_images(str(folder))


def test_what_needs_an_extra_that_is_gone_stays_indexed(
    folder: Path, image: bytes, base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.open(io.BytesIO(image)).convert("RGB").save(folder / "1.heic")
    db = str(tmp_path / "t.lance")
    assert len(build_index(str(folder), db, model=str(base), device="cpu").index) == 2
    request.getfixturevalue("no_photos")
    indexed = build_index(str(folder), db, device="cpu")
    assert indexed.changes is not None
    assert (indexed.changes.removed, list(indexed.changes.closed)) == (0, ["1.heic"])
    assert len(indexed.index) == 2


def test_raw_beside_an_image_of_the_same_name(folder: Path, image: bytes, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    colors = np.full((48, 64, 3), 128, np.uint8)
    for name in ("a/IMG_1.DNG", "a/IMG_2.dng", "a/b/img_1.dng"):
        add(folder, name, dng(colors, preview=image))
    add(folder, "a/img_1.JPG", image)
    for source in (str(folder), folder.as_uri()):
        listing = list_images(source)
        assert sorted(listing.ids) == ["0.jpg", "a/IMG_2.dng", "a/b/img_1.dng", "a/img_1.JPG"]
        assert listing.skipped == {"a/IMG_1.DNG": "camera RAW beside img_1.JPG; --raw-pairs indexes both"}
    db = str(tmp_path / "t.lance")
    assert len(build_index(str(folder), db, model=str(base), device="cpu", raw_pairs=True).index) == 5
    assert len(build_index(str(folder), db, device="cpu").index) == 5
    assert len(build_index(str(folder), db, device="cpu", raw_pairs=False).index) == 4


def test_raw_waits_for_the_image_beside_it_that_a_cloud_has_not_downloaded(
    folder: Path, image: bytes, base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("rawpy")
    colors, db = np.full((48, 64, 3), 128, np.uint8), str(tmp_path / "t.lance")
    for name in ("a/both.dng", "a/alone.dng"):
        add(folder, name, dng(colors))
    add(folder, "a/both.jpg", image)
    indexed = build_index(str(folder), db, model=str(base), device="cpu").index
    before = sorted(hit.id for hit in indexed.browse(50))
    assert before == ["0.jpg", "a/alone.dng", "a/both.jpg"]
    add(folder, "a/both.jpg", b"")
    # One that was indexed while it was alone stays, too.
    add(folder, "a/alone.jpg", b"")
    why = "camera RAW beside both.jpg, which cannot be read now; --raw-pairs indexes both"
    for source in (str(folder), folder.as_uri()):
        listing = list_images(source)
        assert listing.ids == ["0.jpg"]
        assert listing.closed["a/both.dng"] == why
    again = build_index(str(folder), db, device="cpu", max_removed=0)
    assert again.changes is not None
    assert again.changes.embedded == again.changes.removed == 0
    assert sorted(hit.id for hit in again.index.browse(50)) == before


def test_developing_a_folder_of_raw_loses_nothing(folder: Path, image: bytes, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    db = str(tmp_path / "t.lance")
    for number in range(4):
        add(folder, f"a/{number}.dng", dng(np.full((48, 64, 3), 40 * number, np.uint8)))
    assert len(build_index(str(folder), db, model=str(base), device="cpu").index) == 5
    for number in range(4):
        add(folder, f"a/{number}.jpg", image + bytes([number]))
    indexed = build_index(str(folder), db, device="cpu")
    assert sorted(indexed.index.engine.table.read(["id"])["id"].to_pylist()) == [
        "0.jpg", "a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg",
    ]  # fmt: skip


def test_a_name_that_is_not_utf8(folder: Path, image: bytes) -> None:
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(image)
    listing = list_images(str(folder))
    assert listing.ids == ["0.jpg"]
    assert listing.skipped == {"caf\\xe9.jpg": "its name is not UTF-8: rename it"}


def test_names_with_brackets_and_signs(folder: Path, image: bytes, base: Path, tmp_path: Path) -> None:
    names = ["[2019]/a.jpg", "50%/b#3.jpg", "it's/c d.jpg", "line\nbreak.jpg", "[bold]x[/bold].jpg", "é/ü.jpg"]
    for name in names:
        add(folder, name, image)
    (tmp_path / "mk[").mkdir()
    folder = folder.rename(tmp_path / "mk[/bold]d")
    db = str(tmp_path / "[2020] photos.lance")
    build_index(str(folder), db, model=str(base), device="cpu")
    index = Index(db, device="cpu")
    rows = open_table(db).read(["id"])["id"].to_pylist()
    assert sorted(rows) == sorted([*names, "0.jpg"])
    for name in names:
        assert index.image_file(name)[0] == image
    again = build_index(str(folder / "[2019]"), str(tmp_path / "b.lance"), model=str(base), device="cpu")
    assert again.index.row("a.jpg")["folder"] == "."


def test_a_folder_that_may_not_be_entered(
    folder: Path, image: bytes, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "private/1.jpg", image)
    db = str(tmp_path / "t.lance")
    build_index(str(folder), db, model=str(base), device="cpu")
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("mcip.retrieval.folder.os.scandir", refusing)
    listing = list_images(str(folder))
    assert (listing.ids, listing.closed) == (["0.jpg"], {"private": "cannot be listed: Permission denied"})
    indexed = build_index(str(folder), db, device="cpu")
    assert indexed.changes is not None
    assert indexed.changes.removed == 0
    assert indexed.changes.closed == {"private": "cannot be listed: Permission denied"}
    assert sorted(open_table(db).read(["id"])["id"].to_pylist()) == ["0.jpg", "private/1.jpg"]


def test_many_nested_folders(folder: Path, image: bytes) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    with os.fdopen(os.open("x.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
        file.write(image)
    os.close(here)
    listing = list_images(str(folder))
    assert listing.ids == ["0.jpg", "d/" * 1100 + "x.jpg"]
    assert listing.content(1) == image


def test_folders_too_deep_for_a_path(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    listing = list_images(str(folder))
    assert listing.ids == ["0.jpg"]
    assert list(listing.closed.values()) == ["cannot be read: File name too long"]


def test_links(folder: Path, image: bytes, tmp_path: Path) -> None:
    add(tmp_path, "other/1.jpg", image)
    (folder / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    (folder / "nothing.jpg").symlink_to(tmp_path / "nothing")
    files = list_folder(folder)
    assert list(files.images) == ["0.jpg", "other/1.jpg"]
    assert files.skipped == {"nothing.jpg": "a link to nothing, or a file that vanished"}


def test_files_that_vanish_after_they_were_listed(
    folder: Path, image: bytes, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        add(folder, f"{number}.jpg", image + bytes([number]))
    from mcip.retrieval import roots

    def list_and_remove(source: str, columns: str, raw_pairs: bool) -> object:
        listing = list_images(source, columns, raw_pairs)
        (folder / "3.jpg").unlink()
        return listing

    monkeypatch.setattr(roots, "list_images", list_and_remove)
    indexed = build_index(str(folder), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    assert indexed.changes is not None
    assert indexed.changes.unreadable == {"3.jpg": f"no file {folder / '3.jpg'}"}
    assert len(indexed.index) == 5


def test_what_is_no_regular_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    listing = list_images(str(folder))
    assert (listing.ids, listing.skipped) == (["0.jpg"], {"pipe.jpg": "not a regular file"})


@pytest.mark.parametrize("name", ["x" * 600, "a\0b", "/" + "d/" * 3000])
def test_sources_that_no_path_can_have(name: str) -> None:
    with pytest.raises(DataError):
        list_images(name)
