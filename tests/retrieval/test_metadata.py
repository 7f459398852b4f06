"""Columns of sources as people have them: odd names and types end in a table, never in an error of Lance."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import DataError
from mcip.retrieval.index import Index
from mcip.retrieval.metadata import column_names, fit_types
from mcip.retrieval.table import OWN, open_table
from mcip.stages.index import index as build_index


def test_names() -> None:
    names = ["", "a.b", "a_b", "c`d", "_rowid", "path", "source_path", "ID", "Year", "year", "é ü", "_distance", " "]
    assert column_names(names) == {
        "": "unnamed", "a.b": "a_b_2", "a_b": "a_b", "c`d": "c_d", "_rowid": "source__rowid", "path": "source_path_2",
        "source_path": "source_path", "ID": "source_ID", "Year": "Year", "year": "year_2", "é ü": "é ü",
        "_distance": "source__distance", " ": "unnamed_2",
    }  # fmt: skip


ODD = st.sampled_from(["id", "Id", "path", "source_path", "a.b", "a_b", "_rowid"])


@given(
    st.lists(
        st.text(max_size=6) | st.sampled_from(["id", "Id", "path", "source_path", "a.b", "a_b", "_rowid"]), unique=True
    )
)
def test_names_are_unique_and_allowed(names: list[str]) -> None:
    found = column_names(names)
    assert found.keys() == set(names)
    lower = [name.lower() for name in found.values()]
    assert len(set(lower)) == len(lower)
    assert not set(lower) & set(OWN)
    assert not any(letter in name for name in lower for letter in ".`\0")
    assert all(name.strip() for name in lower)


@pytest.fixture
def frame(album: Path) -> pd.DataFrame:
    return pd.DataFrame({"image": [str(path) for path in sorted(album.rglob("*.jpg"))[:4]]})


ODD_COLUMNS = {"a.b": 1, "c`d": 2, "_rowid": 3, "path": 4, "source_path": 5, "vector": 6, "x" * 600: "y" * 600}


def test_a_csv_with_an_index_and_odd_names(frame: pd.DataFrame, base: Path, tmp_path: Path) -> None:
    frame.assign(**ODD_COLUMNS).to_csv(tmp_path / "t.csv")
    build_index(str(tmp_path / "t.csv"), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    row = Index(tmp_path / "t.lance", device="cpu").row(frame["image"][2])
    expected = {"a_b": 1, "c_d": 2, "source__rowid": 3, "source_path_2": 4, "source_path": 5, "source_vector": 6}
    assert {name: row[name] for name in expected} == expected
    assert row["x" * 600] == "y" * 600


def test_a_parquet_file_with_a_column_without_a_name(frame: pd.DataFrame, base: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"": range(4), "image": frame["image"]}), tmp_path / "t.parquet")
    build_index(str(tmp_path / "t.parquet"), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    index = Index(tmp_path / "t.lance", device="cpu")
    assert index.row(frame["image"][2])["unnamed"] == 2
    assert [hit.id for hit in index.search(image=frame["image"][0], where="unnamed = 3", k=9)] == [frame["image"][3]]


def test_digits_stay_digits(frame: pd.DataFrame, base: Path, tmp_path: Path) -> None:
    columns = {
        "long": ["109876543210987654321", "109876543210987654322", "1", "2"], "price": ["1.10", "1.1", "2", "3"],
        "code": ["007", "1", "2", "3"], "hex": ["0x10", "nan", "12e4", "1"], "year": ["2014", "", "2015", "-3"],
        "half": ["0.5", "1", "2.25", ""],
    }  # fmt: skip
    frame.assign(**columns).to_csv(tmp_path / "t.csv", index=False)
    pq.write_table(pa.table({"image": frame["image"], "code": ["1", "2", "3", "4"]}), tmp_path / "t.parquet")
    for name in ("csv", "parquet"):
        build_index(str(tmp_path / f"t.{name}"), str(tmp_path / f"{name}.lance"), model=str(base), device="cpu")
    table = open_table(str(tmp_path / "csv.lance"))
    types = {name: table.schema.field(name).type for name in columns}
    assert types == {name: pa.string() for name in columns} | {"year": pa.int64(), "half": pa.float64()}
    found = {row["id"]: row for row in table.read(["id", *columns]).to_pylist()}
    for number, name in enumerate(frame["image"]):
        texts = {column: cells[number] for column, cells in columns.items() if types[column] == pa.string()}
        assert {column: found[name][column] for column in texts} == texts
    assert open_table(str(tmp_path / "parquet.lance")).schema.field("code").type == pa.string()


def test_types_follow_the_table_or_widen() -> None:
    listed = pa.table({"a": ["1", "x"], "b": [1, 2], "c": [0.5, 1.0], "d": [1, 2], "e": [1, 2]})
    types = {"a": pa.int64(), "b": pa.string(), "c": pa.int64(), "d": pa.int64(), "e": pa.float64()}
    columns, wider = fit_types(listed, types, "s")
    assert wider == {"a": pa.string(), "c": pa.float64()}
    assert columns.to_pydict() == {"a": ["1", "x"], "b": ["1", "2"], "c": [0.5, 1.0], "d": [1, 2], "e": [1.0, 2.0]}
    with pytest.raises(DataError, match=r"column 'a' of the index holds list<item: int64>, but that of s holds string"):
        fit_types(listed, {"a": pa.list_(pa.int64())}, "s")
