"""Reading a table from class folders, CSV and parquet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from mcip.core.errors import DataError
from mcip.data import read_table
from tests.images import file_bytes, noise_image

from .conftest import MakeImage, embedded, write_csv, write_parquet


def test_class_folders(tmp_path: Path, make_image: MakeImage) -> None:
    for name in (
        "b/2.JPG",
        "b/10.jpg",
        "a/x.PNG",
        "a b/y.png",
        "._b/1.jpg",
        "a/._x.PNG",
        "a/.hidden.png",
        "a/note.txt",
    ):
        make_image(name)
    table = read_table(tmp_path)
    assert table.ids == ["a/x.PNG", "a b/y.png", "b/10.jpg", "b/2.JPG"]
    assert table.labels == ["a", "a b", "b", "b"]
    assert table.splits == ["train"] * 4
    assert table.captions == [[]] * 4
    assert table.rows.column_names == ["image", "label", "captions", "split", "id"]
    assert table.image(0).size == (24, 16)


def test_split_folders(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("Train/a/1.png", "validation/a/1.png", "test/a/1.png", "test/b/1.png"):
        make_image(name)
    table = read_table(tmp_path)
    assert sorted(set(table.splits)) == ["test", "train", "val"]
    assert table.select("test").labels == ["a", "b"]
    assert table.select("val").ids == table.select("validation").ids == ["validation/a/1.png"]
    assert read_table(tmp_path, split="train").ids == ["Train/a/1.png"]


def test_a_class_named_train_is_a_class(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("train/1.png", "bus/1.png"):
        make_image(name)
    assert read_table(tmp_path).labels == ["bus", "train"]


def test_nested_folders_are_different_classes_and_loose_images_have_no_label(
    tmp_path: Path, make_image: MakeImage
) -> None:
    for name in ("S1/a/1.png", "S2/a/1.png", "loose.png"):
        make_image(name)
    assert read_table(tmp_path).labels == ["S1/a", "S2/a", None]


def test_links_are_followed_but_not_in_circles(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("real/a/1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "b").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "a" / "again").symlink_to(tmp_path / "real" / "a")
    assert read_table(root).ids == ["b/1.png"]


@pytest.mark.parametrize(
    ("files", "message"), [([], "it is empty"), (["a/x.txt1", "a/y.md"], r"1 \.(md|txt1), 1 \.(md|txt1)")]
)
def test_folder_without_images(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=f"no images.*{message}"):
        read_table(tmp_path)


def test_file_name_that_is_not_utf8_is_passed_over(
    tmp_path: Path, make_image: MakeImage, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_image("a/1.png")
    make_image("a/2.png")
    try:
        os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/\xff.png")  # noqa: PTH104 - bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    table = read_table(tmp_path / "a")
    assert (table.ids, table.skipped) == (["2.png"], {"with a name that is not UTF-8": 1})
    assert "not read: 1 with a name that is not UTF-8" in capsys.readouterr().err


def test_csv(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("img/a.png")
    make_image("img/b.png")
    path = write_csv(
        tmp_path / "t.csv",
        ["image", "label", "captions", "split", "id"],
        ["img/a.png", "007", json.dumps(["one", "zwei, drei"]), "train", "01"],
        [str(tmp_path / "img/b.png"), "", "just one", "valid", "NA"],
    )
    table = read_table(path)
    assert table.name == "t.csv"
    assert table.labels == ["007", None]
    assert table.captions == [["one", "zwei, drei"], ["just one"]]
    assert table.splits == ["train", "val"]
    assert table.ids == ["01", "NA"]
    assert table.image(1).size == (24, 16)


def test_csv_with_other_column_names(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["file", "shape", "title"], ["a.png", "disc", "[not a list"])
    table = read_table(path, columns={"image": "file", "label": "shape", "captions": "title"})
    assert (table.ids, table.labels, table.captions) == (["a.png"], ["disc"], [["[not a list"]])


def test_a_caption_column_that_is_named_wins_over_captions(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["image", "captions", "title"], ["a.png", "long", "short"])
    assert read_table(path).captions == [["long"]]
    assert read_table(path, columns={"caption": "title"}).captions == [["short"]]


@pytest.mark.parametrize(
    ("name", "split"),
    [("val.csv", "val"), ("test_small.csv", "test"), ("my-test.csv", "train"), ("testy.csv", "train")],
)
def test_split_of_a_file_without_the_column(tmp_path: Path, make_image: MakeImage, name: str, split: str) -> None:
    make_image("a.png")
    assert read_table(write_csv(tmp_path / name, ["image"], ["a.png"])).splits == [split]


def test_tsv_and_single_caption_and_byte_order_mark(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = tmp_path / "t.tsv"
    path.write_text("\ufeffimage\tcaption\na.png\ta, b\n\n", encoding="utf-8")
    assert read_table(path).captions == [["a, b"]]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["image"], ["a.png"], ["gone.png"], ["lost.png"]], {}, r"row 2 of t\.csv: no file gone\.png .*1 other row"),
        ([["image", "label"], ["a.png", "x"], ["", "y"]], {}, r"row 2 of t\.csv: no image"),
        ([["image", "label"], ["a.png"]], {}, r"row 1 of t\.csv \(line 2\) has 1 cells, the header 2"),
        ([["image"], ["a.png", "x"]], {}, r"row 1 of t\.csv \(line 2\) has 2 cells, the header 1"),
        ([["image", "id"], ["a.png", "1"], ["a.png", "2"], ["a.png", "1"]], {}, "rows 1 and 3 .* same id '1'"),
        ([["image", "id"], ["a.png", "1"], ["a.png", ""]], {}, r"row 2 of t\.csv: no id"),
        (
            [["image", "caption"], ["a.png", "x"], ["a.png", "y"]],
            {},
            "rows 1 and 2 .*all captions of an image into one",
        ),
        ([["image", "split"], ["a.png", ""]], {}, r"row 1 of t\.csv: no split"),
        ([["image", "captions"], ["a.png", "[1, 2]"]], {}, r"row 1 of t\.csv.*list of texts"),
        ([["image"]], {}, "no rows"),
        ([["path", "label"], ["a.png", "x"]], {}, r"no column 'image'; its columns are 'path', 'label'"),
        ([["image", "shape"], ["a.png", "x"]], {"label": "shpae"}, "no column 'shpae'.*did you mean 'shape'"),
        ([["image", "image"], ["a.png", "a.png"]], {}, "'image' more than once"),
        ([], {}, "is empty"),
    ],
)
def test_wrong_csv(
    tmp_path: Path, make_image: MakeImage, rows: list[list[str]], columns: dict[str, str], message: str
) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", *rows)
    with pytest.raises(DataError, match=message):
        read_table(path, columns=columns)


def test_csv_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"image\nna\xefve.png\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_table(path)


def test_unknown_split_names_the_known_ones(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    make_image("b.png")
    path = write_csv(tmp_path / "t.csv", ["image", "split"], ["a.png", "train"], ["b.png", "query"])
    with pytest.raises(DataError, match=r"no split 'querry'; did you mean 'query'.*it has train, query"):
        read_table(path, split="querry")


def test_parquet_with_embedded_images(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet",
        {"image": embedded(3), "label": [4, None, 5], "captions": [["a", " ", None], None, []], "extra": [1, 2, 3]},
    )
    table = read_table(path)
    assert table.labels == ["4", None, "5"]
    assert table.captions == [["a"], [], []]
    assert table.ids == ["train/0", "train/1", "train/2"]
    assert table.image(2).tobytes() == noise_image(2).tobytes()
    part = table.subset([2, 0])
    assert part.ids == ["train/2", "train/0"]
    assert part.image(0).tobytes() == noise_image(2).tobytes()


@pytest.mark.parametrize("as_large", [False, True])
def test_parquet_with_bytes_or_paths(tmp_path: Path, make_image: MakeImage, as_large: bool) -> None:
    make_image("img/0.png")
    binary, string = (pa.large_binary(), pa.large_string()) if as_large else (pa.binary(), pa.string())
    content = write_parquet(tmp_path / "b.parquet", {"image": pa.array([file_bytes(noise_image())], binary)})
    paths = write_parquet(tmp_path / "p.parquet", {"image": pa.array(["img/0.png"], string)})
    assert read_table(content).image(0).tobytes() == read_table(paths).image(0).tobytes() == noise_image().tobytes()
    assert read_table(paths).ids == ["img/0.png"]


def test_parquet_folder_and_glob_take_splits_from_file_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", {"image": embedded(2)})
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", {"image": embedded(1)})
    for source in (tmp_path, tmp_path / "data", f"{tmp_path}/data/*.parquet"):
        table = read_table(source)
        assert table.splits == ["train", "train", "val"]
        assert table.ids == ["train/0", "train/1", "val/0"]


def test_class_labels_become_names(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict({"image": embedded(3), "label": [1, 0, -1]}, features=features)
    rows.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").labels == ["dog", "cat", None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1, 2]}, "'image' holds int64"),
        ({"image": embedded(1), "label": [0.5]}, "'label' holds double"),
        ({"image": embedded(1), "captions": [[1]]}, "'captions' holds list"),
        ({"image": [*embedded(1), None]}, "row 2 of t.parquet: no image"),
        ({"image": [*embedded(1), {"bytes": None, "path": "gone.png"}]}, r"row 2 of t.parquet: no file gone\.png"),
        ({"image": pa.array([], pa.binary())}, "no rows"),
    ],
)
def test_wrong_parquet(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write_parquet(tmp_path / "t.parquet", columns))


@pytest.mark.parametrize("size", [0, 10, 200])
def test_cut_off_parquet(tmp_path: Path, size: int, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(2)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"cannot read .*t\.parquet"):
        read_table(path)
    assert capfd.readouterr() == ("", "")
