"""The table itself, whatever it was read from."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from mcip.core.errors import DataError, UnreadableImage
from mcip.data import Table, read_table
from tests.images import noise_image

from .conftest import MakeImage, embedded, write_csv, write_parquet

REAL = Path(__file__).parents[3] / "shared" / "data"


def test_unreadable_image_names_its_row(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png").write_bytes(b"no image at all")
    with pytest.raises(UnreadableImage, match=r"row 0 of .* \(a\.png\): not an image"):
        read_table(tmp_path).image(0)


def test_missing_source_names_the_nearest(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("birds/a.png")
    with pytest.raises(DataError, match=r"no file or folder .*birdz; did you mean .*birds"):
        read_table(tmp_path / "birdz")
    with pytest.raises(DataError, match="does not exist either"):
        read_table(str(tmp_path / "x" / "y"))
    with pytest.raises(DataError, match="no file matches"):
        read_table(f"{tmp_path}/*.parquet")
    with pytest.raises(DataError, match=r"not a \.png file"):
        read_table(tmp_path / "birds" / "a.png")


def test_nothing_is_printed(tmp_path: Path, make_image: MakeImage, capfd: pytest.CaptureFixture[str]) -> None:
    make_image("img/a.png")
    read_table(write_csv(tmp_path / "t.csv", ["image"], ["img/a.png"]))
    read_table(write_parquet(tmp_path / "t.parquet", {"image": embedded(3)})).subset([1, 0]).select("train")
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    """Also where size and modification time are those of before."""
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(1), "label": ["a"]})
    before, state = read_table(path), path.stat()
    other = write_parquet(tmp_path / "other.parquet", {"image": embedded(1), "label": ["b"]})
    assert other.stat().st_size == state.st_size
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (before.labels, read_table(path).labels) == (["a"], ["b"])


def test_changed_csv_and_folder_are_read_again(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("img/a/1.png")
    path = write_csv(tmp_path / "t.csv", ["image", "label"], ["img/a/1.png", "x"])
    assert read_table(path).labels == ["x"]
    write_csv(path, ["image", "label"], ["img/a/1.png", "y"])
    assert read_table(path).labels == ["y"]
    make_image("img/b/2.png")
    assert read_table(tmp_path / "img").labels == ["a", "b"]


def test_full_disk_is_named(tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image("a.png")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_stream", full)
    with pytest.raises(DataError, match=r"t\.csv \(into the cache .*No space left on device"):
        read_table(write_csv(tmp_path / "t.csv", ["image"], ["a.png"]))


def test_pickled_table_is_the_same(tmp_path: Path) -> None:
    """Worker processes that are not forked receive the table pickled."""
    table = read_table(write_parquet(tmp_path / "t.parquet", {"image": embedded(3)})).subset([2, 0])
    again = pickle.loads(pickle.dumps(table))  # noqa: S301 - made one line above
    assert again.fingerprint == table.fingerprint
    assert again.image(0).tobytes() == noise_image(2).tobytes()


def test_fingerprint_goes_by_content_not_place(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("one/a/1.png", "one/b/2.png"):
        make_image(name)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = read_table(tmp_path / "one"), read_table(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert one.subset([1, 0]).fingerprint != one.fingerprint
    assert one.subset([0, 1]).fingerprint == one.fingerprint
    (tmp_path / "two" / "a" / "1.png").write_bytes(b"shorter")
    assert read_table(tmp_path / "two").fingerprint != one.fingerprint


@pytest.mark.parametrize("column", ["label", "captions", "split", "id"])
def test_fingerprint_sees_every_column(tmp_path: Path, column: str) -> None:
    first: dict[str, Any] = {"image": embedded(1), "label": ["a"], "captions": [["b"]], "split": ["train"], "id": ["1"]}
    second = first | {column: [["c"]] if column == "captions" else ["test"]}
    tables: list[Table] = []
    for name, columns in (("1", first), ("2", second)):
        tables.append(read_table(write_parquet(tmp_path / f"{name}.parquet", columns)))
    assert tables[0].fingerprint != tables[1].fingerprint


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside the checkout (../shared/data)")
def test_real_parquet() -> None:
    table = read_table(REAL / "cub100.parquet", split="test")
    assert set(table.splits) == {"test"}
    assert len(set(table.labels)) == 50
    assert table.image(len(table) - 1).mode == "RGB"
