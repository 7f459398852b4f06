"""Columns are found by their names whatever their case, and messages say how to name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import ConfigError, DataError
from mcip.data import read_table
from mcip.data.column_names import parse_columns
from mcip.data.numbers import as_numbers

from .conftest import MakeImage, embedded, write_csv, write_parquet


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("image=path,label=category", {"image": "path", "label": "category"}),
        (" image = path , label=a=b ", {"image": "path", "label": "a=b"}),
        ('image=path,"label=size, cm"', {"image": "path", "label": "size, cm"}),
    ],
)
def test_columns_of_the_command(text: str, columns: dict[str, str]) -> None:
    assert parse_columns(text) == columns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: give pairs such as"),
        ("image", "'image' is no pair such as image=path"),
        ("image=", "'image=' is no pair"),
        ("=path", "'=path' is no pair"),
        ("image=a,,label=b", "'' is no pair"),
        ("image=a,image=b", "names image twice"),
        ("lable=x", "no table column 'lable'; did you mean 'label'"),
        ('"image=a', "columns"),
    ],
)
def test_wrong_columns_of_the_command(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_columns(text)


def test_columns_as_text_and_as_names(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["path", "Category"], ["a.png", "x"])
    for columns in ("image=path,label=category", {"image": "path", "label": "Category"}):
        assert read_table(path, columns=columns).labels == ["x"]
    with pytest.raises(ConfigError, match="no table column 'lable'; did you mean 'label'"):
        read_table(path, columns={"lable": "path"})
    with pytest.raises(DataError, match=r"no column 'image'; its columns are 'path', 'Category'.*--columns image=path"):
        read_table(path)


@pytest.mark.parametrize(
    "header", ["image, label", "image ,label ", "Image,Label", "IMAGE, LABEL", "\ufeffimage,label"]
)
def test_names_with_spaces_and_capitals(tmp_path: Path, make_image: MakeImage, header: str) -> None:
    make_image("a.png")
    space = " " if ", " in header else ""
    (tmp_path / "t.csv").write_text(f"{header}\na.png,{space}cat\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert table.labels == ["cat"]


def test_names_in_parquet(tmp_path: Path) -> None:
    rows = {" Image": embedded(1), "LABEL ": ["x"], "Captions": [["a"]], "Split": ["test"], "ID": ["7"]}
    table = read_table(write_parquet(tmp_path / "t.parquet", rows))
    assert (table.labels, table.captions, table.splits, table.ids) == (["x"], [["a"]], ["test"], ["7"])


def test_exact_names_win_and_two_alike_are_refused(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"image": embedded(1), "label": ["a"], "Label": ["b"]}
    assert read_table(write_parquet(tmp_path / "t.parquet", rows)).labels == ["a"]
    rows = {"image": embedded(1), "LABEL": ["a"], "Label": ["b"]}
    path = write_parquet(tmp_path / "t.parquet", rows)
    with pytest.raises(DataError, match=r"'LABEL', 'Label' could all be 'label'\. Name the columns"):
        read_table(path)
    assert read_table(path, columns="label=Label").labels == ["b"]


def test_a_table_says_which_columns_its_source_has(tmp_path: Path) -> None:
    table = read_table(write_parquet(tmp_path / "t.parquet", {"image": embedded(1), "category": ["x"]}))
    hint = table.subset([0]).columns_hint
    assert hint.startswith(" Its columns are 'image', 'category'. Name the columns")
    assert "--columns image=path,label=category" in hint
    assert read_table(table.rows).columns_hint.startswith(" Its columns are 'image', 'label'")


@pytest.mark.parametrize("name", ["a`b", "a.b", "_rowid", "path", "source_path", 'q"uote', "sp ace"])
def test_other_columns_may_have_any_name(tmp_path: Path, make_image: MakeImage, name: str) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["image", name, "label"], ["a.png", "1", "x"])
    table = read_table(path)
    assert (table.labels, table.source_columns) == (["x"], ("image", name, "label"))
    rows = {"image": embedded(1), name: [{"b": 1}], "label": ["x"], "a": [2]}
    table = read_table(write_parquet(tmp_path / "t.parquet", rows))
    assert (table.labels, table.source_columns) == (["x"], tuple(rows))


def test_unnamed_index_of_pandas(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["", "image", "label", ""], ["17", "a.png", "x", ""])
    table = read_table(path)
    assert (table.labels, table.source_columns) == (["x"], ("image", "label"))
    path = write_csv(tmp_path / "t.csv", ["", "image"], ["cat", "a.png"])
    with pytest.raises(DataError, match=r"row 1 of t\.csv .*column 1 holds 'cat', and has no name in the header"):
        read_table(path)


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_other_separators_are_named(tmp_path: Path, mark: str) -> None:
    (tmp_path / "t.csv").write_text(f"image{mark}label\na.png{mark}x\n")
    with pytest.raises(DataError, match=r"its header is one column 'image.+label': separate the columns by commas"):
        read_table(tmp_path / "t.csv")


def test_large_cells(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    path = write_csv(tmp_path / "t.csv", ["image", "caption"], ["a.png", "x" * 200_000])
    assert len(read_table(path).captions[0][0]) == 200_000
    path = write_csv(tmp_path / "u.csv", ["image"], ["x" * 600])
    with pytest.raises(DataError, match=r"row 1 of u\.csv: no file x+ \.\.\. x+ \(600 characters\)"):
        read_table(path)
    for cell in ("a\0b", "~nobody-of-this-name/a.png"):
        with pytest.raises(DataError, match=r"row 1 of u\.csv: no file"):
            read_table(write_csv(tmp_path / "u.csv", ["image"], [cell]))


def test_whole_numbers_of_pandas_are_labels(tmp_path: Path) -> None:
    """A column with gaps is of floats there."""
    rows = {"image": embedded(3), "label": [1.0, None, 20.0]}
    assert read_table(write_parquet(tmp_path / "t.parquet", rows)).labels == ["1", None, "20"]
    rows["label"] = pa.array(np.array([1, 2, 20], np.float16))
    assert read_table(write_parquet(tmp_path / "t.parquet", rows)).labels == ["1", "2", "20"]
    rows["label"] = [1.0, None, 2.0**53]
    with pytest.raises(DataError, match="'label' holds double"):
        read_table(write_parquet(tmp_path / "t.parquet", rows))


# Numbers


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-7", None], pa.int64()),
        (["1.5", "2", None], pa.float64()),
        (["109876543210987654321", "109876543210987654322"], pa.string()),
        (["1.10", "1.1"], pa.string()),
        (["5", "5.0"], pa.string()),
        (["01", "1"], pa.string()),
        (["12e4"], pa.string()),
        (["0x10"], pa.string()),
        (["nan", "1"], pa.string()),
        (["inf"], pa.string()),
        (["+1"], pa.string()),
        (["-0"], pa.string()),
        ([" 1"], pa.string()),
        (["1", "x"], pa.string()),
        ([None, None], pa.string()),
    ],
)
def test_texts_become_numbers_only_where_nothing_is_lost(cells: list[str | None], kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(cells, pa.string())])
    assert as_numbers(column).type == kind


@given(st.lists(st.none() | st.integers(-(2**70), 2**70).map(str) | st.floats().map(repr) | st.text(max_size=4)))
def test_digits_survive(cells: list[str | None]) -> None:
    numbers = as_numbers(pa.chunked_array([pa.array(cells, pa.string())])).to_pylist()
    assert [value is None for value in numbers] == [cell is None for cell in cells]
    spelled = {cell for cell in cells if cell is not None}
    assert len({value for value in numbers if value is not None}) == len(spelled)
    for value, cell in zip(numbers, cells, strict=True):
        assert cell is None or str(value) == cell or str(value) == f"{cell}.0"


def test_a_column_of_sources_is_kept_where_there_is_one(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("x.png")
    image = "x.png"
    table = read_table(write_csv(tmp_path / "a.csv", ("image", "source", "id"), (image, "shop", "1"), (image, "", "2")))
    assert table.sources == ["shop", None]
    assert table.subset([1, 0]).sources == [None, "shop"]
    assert read_table(write_csv(tmp_path / "b.csv", ("image",), (image,))).sources == []
    numbers = pd.DataFrame({"image": [str(tmp_path / image)], "source": [1.5], "from": [7]})
    assert read_table(numbers).sources == [], "no texts, and not named"
    assert read_table(numbers, columns={"source": "from"}).sources == ["7"]
