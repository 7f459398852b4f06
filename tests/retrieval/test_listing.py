"""What there is to index, and reading it again by the path in the table."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mcip.core.errors import DataError, UnreadableImage
from mcip.retrieval.listing import list_images, read_image


def test_a_folder_to_its_depths(album: Path) -> None:
    listed = list_images(str(album))
    assert listed.ids == sorted(listed.ids, key=lambda name: (album / name).parts)
    assert len(listed) == 36
    assert {len(name.split("/")) for name in listed.ids} == {1, 2, 3}
    for number, name in enumerate(listed.ids):
        assert listed.content(number) == (album / name).read_bytes() == read_image(listed.paths[number])


def test_stamps_change_with_the_file_its_place_and_its_metadata(own_album: Path, train: Path, tmp_path: Path) -> None:
    before = list_images(str(own_album))
    assert list_images(str(own_album)).stamps == before.stamps
    os.utime(own_album / before.ids[0], (1, 1))
    (own_album / before.ids[1]).write_bytes(b"x")
    after = list_images(str(own_album))
    assert [a != b for a, b in zip(after.stamps, before.stamps, strict=True)] == [True, True, *[False] * 34]
    table, copy = pq.read_table(train), tmp_path / "t.parquet"
    pq.write_table(table, copy)
    first = list_images(str(copy))
    labels = table["label"].to_pylist()
    pq.write_table(table.set_column(1, "label", [["other", *labels[1:]]]), copy)
    second = list_images(str(copy))
    assert [a != b for a, b in zip(first.stamps, second.stamps, strict=True)] == [True, *[False] * 31]


def test_tars(train: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).to_pylist()[:3]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jpg").write_bytes(row["image"]["bytes"])
        (tmp_path / f"{number}.txt").write_text(row["captions"][0])
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for path in sorted(tmp_path.glob("[0-9].*")):
            archive.add(path, path.name)
    listed = list_images(str(tmp_path / "t.tar"))
    assert listed.ids == ["t/0", "t/1", "t/2"]
    assert listed.metadata["captions"].to_pylist() == [row["captions"][:1] for row in rows]
    assert [read_image(path) for path in listed.paths] == [row["image"]["bytes"] for row in rows]


def test_a_file_whose_name_looks_like_a_row_of_a_table(own_album: Path) -> None:
    odd = own_album / "mug.parquet#3"
    odd.write_bytes(b"image")
    assert read_image(str(odd)) == b"image"


def test_what_cannot_be_read(train: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no file"):
        read_image(str(tmp_path / "gone.jpg"))
    with pytest.raises(UnreadableImage, match=r"row 99 of .* is gone"):
        read_image(f"{train}#99")
    with pytest.raises(UnreadableImage, match=r"row 0 of .* is gone"):
        read_image(f"{tmp_path / 'gone.parquet'}#0")
    with pytest.raises(UnreadableImage, match="no file"):
        read_image((tmp_path / "gone.jpg").as_uri())
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(DataError, match=r"none of its 1 files is one \(1 .txt\)"):
        list_images(tmp_path.as_uri())
    with pytest.raises(DataError, match="no file or folder"):
        list_images((tmp_path / "gone.parquet").as_uri())
    with pytest.raises(DataError, match="no file or folder"):
        list_images((tmp_path / "gone").as_uri())
