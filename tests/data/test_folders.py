"""What a folder is does not change by a stray file; files that are not read are counted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.data.locate import locate
from tests.images import file_bytes, noise_image

from .conftest import MakeImage, embedded, write_csv, write_parquet
from .test_pools_and_tars import write_tar


@pytest.mark.parametrize(
    ("images", "labels", "splits", "beside"),
    [
        (["train/cat/1.png", "val/cat/2.png", "x.png"], ["cat", "cat"], ["train", "val"], "images beside train, val"),
        (["train/cat/1.png", "val/cat/2.png", "x/a.png"], ["cat", "cat"], ["train", "val"], "images beside train, val"),
        (["train/a/1.png", "train/b/1.png", "logo.png"], ["a", "b"], ["train"] * 2, "images beside train"),
        (["train/a/1.png", "train/b/1.png", "docs/x.png"], ["a", "b"], ["train"] * 2, "images beside train"),
        (["train/1.png", "val/2.png", "x.png"], [None, None], ["train", "val"], "images beside train, val"),
        (["train/1.png", "bus/1.png", "car/1.png"], ["bus", "car", "train"], ["train"] * 3, ""),
        (["train/steam/1.png", "bus/1.png", "car/1.png"], ["bus", "car", "train/steam"], ["train"] * 3, ""),
        (["a/1.png", "b/1.png", "logo.png"], ["a", "b", None], ["train"] * 3, ""),
    ],
)  # fmt: skip
def test_split_folders(
    tmp_path: Path, make_image: MakeImage, images: list[str], labels: list[str], splits: list[str], beside: str
) -> None:
    for name in images:
        make_image(name)
    table = read_table(tmp_path)
    assert (table.labels, table.splits) == (labels, splits)
    assert table.skipped == ({beside: 1} if beside else {})


def test_images_beside_parquet_shards(tmp_path: Path, make_image: MakeImage) -> None:
    for shard in ("train-0", "test-0"):
        write_parquet(tmp_path / f"{shard}.parquet", {"image": embedded(1), "label": [shard]})
    for number in range(9):
        make_image(f"logo{number}.png")
    table = read_table(tmp_path)
    assert table.labels == ["test-0", "train-0"]
    assert table.skipped == {".png": 9}


def test_parquet_and_csv_with_facts_about_images(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a/1.png")
    write_parquet(
        tmp_path / "metadata.parquet", {"file_name": ["a/1.png"] * 1000, "label": list(map(str, range(1000)))}
    )
    write_csv(tmp_path / "metadata.csv", ["file_name"], ["a/1.png"])
    table = read_table(tmp_path)
    assert table.labels == ["a"]
    assert table.skipped == {".parquet": 1, ".csv": 1}


def test_an_image_beside_tars_and_a_tar_beside_images(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("tars/logo.png")
    write_tar(tmp_path / "tars" / "0.tar", {"0.png": file_bytes(noise_image()), "0.cls": b"x"})
    assert read_table(tmp_path / "tars").labels == ["x"]
    members = {f"{number}.png": make_image(f"images/a/{number}.png", number).read_bytes() for number in range(20)}
    write_tar(tmp_path / "images" / "images.tar.gz", members)
    assert read_table(tmp_path / "images").labels == ["a"] * 20


def test_files_that_are_not_read_are_counted_and_said_once(
    tmp_path: Path, make_image: MakeImage, capsys: pytest.CaptureFixture[str]
) -> None:
    make_image("a/1.png")
    for name in ("a/1.XCF", "a/2.xcf", "b/3.SVG", "[red]", "a/.hidden", "a/._1.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    table = read_table(tmp_path)
    assert table.skipped == {".xcf": 2, ".svg": 1, "without suffix": 1}
    assert table.subset([0]).skipped == table.skipped
    read_table(tmp_path)
    assert capsys.readouterr().err.count("not read: 2 .xcf, 1 .svg, 1 without suffix") == 1


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_what_systems_leave_in_folders_is_left_out(tmp_path: Path, make_image: MakeImage, prefix: str) -> None:
    for name in ("._x.jpg", ".Trash/1.jpg", "__MACOSX/1.jpg", "@eaDir/1.jpg", "$RECYCLE.BIN/1.jpg", "a b/1.jpg"):
        make_image(name)
    table = read_table(f"{prefix}{str(tmp_path).replace(' ', '%20') if prefix else tmp_path}")
    assert (table.ids, table.skipped) == (["a b/1.jpg"], {})


def test_folder_names_with_brackets(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("[2019]/a/1.png")
    write_parquet(tmp_path / "[x]" / "t[1].parquet", {"image": embedded(2)})
    write_parquet(tmp_path / "[x]" / "u.parquet", {"image": embedded(1)})
    write_tar(tmp_path / "[x]" / "tars" / "0.tar", {"0.png": file_bytes(noise_image())})
    assert read_table(tmp_path / "[2019]").ids == read_table(f"{tmp_path}/[2019]").ids == ["a/1.png"]
    assert len(read_table(f"{tmp_path}/[x]/t[1].parquet")) == 2
    assert len(read_table(f"{tmp_path}/[x]/*.parquet")) == 3
    assert len(read_table(f"{tmp_path}/[x]/tars")) == 1


def test_deep_folders(tmp_path: Path, make_image: MakeImage) -> None:
    """Deeper than Python's calls may be nested."""
    make_image("x/1.png")
    folder = tmp_path / "root"
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.link(tmp_path / "x" / "1.png", "1.png", dst_dir_fd=at)
    os.close(at)
    try:
        assert read_table(folder).ids == ["d/" * 1200 + "1.png"]
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)  # shutil.rmtree goes as deep as Python's calls


def test_a_link_to_a_folder_above_ends(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("top/root/a/1.png")
    (tmp_path / "top" / "root" / "up").symlink_to(tmp_path / "top")
    assert read_table(tmp_path / "top" / "root").ids == ["a/1.png"]


def fail_in(name: str, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let listing the folder of this name fail."""
    scan = os.scandir
    fails = {name: error}

    def scandir(folder: str) -> object:
        if (raised := fails.get(Path(folder).name)) is not None:
            raise raised
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_may_not_be_entered_is_named(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image("a/1.png")
    fail_in("a", PermissionError(13, "Permission denied"), monkeypatch)
    with pytest.raises(DataError, match=r"cannot read the folder .*/a: Permission denied\. Allow reading it"):
        read_table(tmp_path)


def test_a_folder_that_vanishes_while_listing(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image("a/1.png")
    make_image("gone/1.png")
    fail_in("gone", FileNotFoundError(2, "No such file or directory"), monkeypatch)
    assert read_table(tmp_path).ids == ["a/1.png"]


@pytest.mark.parametrize(
    "source", ["x" * 600, "x/" * 3000, "a\0b", "~nobody-of-this-name/x.csv", "x" * 600 + "/*.tar", ""]
)
def test_names_that_no_file_has(source: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(source)
    assert len(str(caught.value)) < 1000


def test_a_root_that_is_not_utf8(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a/1.png")
    try:
        os.rename(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path) + b"/\xff")  # noqa: PTH104 - bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="is not UTF-8: rename"):
        read_table(tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(DataError, match="1 with a name that is not UTF-8"):
        read_table(tmp_path)


def test_located_files_and_those_beside(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("b/2.png")
    make_image("a/1.png")
    (tmp_path / "notes.md").write_text("x")
    located = locate(tmp_path)
    assert located.kind == "images"
    assert [file.name for file in located.files] == ["1.png", "2.png"]
    assert located.skipped == {".md": 1}
