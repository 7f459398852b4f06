"""Values to click on: counted as a naive loop counts them, and their filters leave exactly as many images."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from mcip.retrieval.facets import facets_of
from mcip.retrieval.filters import compile_filter

ROWS = 60
FOLDERS = ["2024/a", "2024/b", "2024", ".", "it's", "2024/a/c"]
START = dt.datetime(2024, 5, 31, 23, 59)
TABLE = pa.table(
    {
        "id": [f"{row}.jpg" for row in range(ROWS)],
        "folder": [FOLDERS[row % 6] for row in range(ROWS)],
        "camera": [None if row % 4 == 0 else f'"{row % 3}"\n' for row in range(ROWS)],
        "unique": [f"text {row}" for row in range(ROWS)],
        "long": ["x" * 200] * ROWS,
        "rating": pa.array([row % 6 for row in range(ROWS)], pa.int8()),
        "size": list(range(ROWS)),
        "share": [0.5] * ROWS,
        "good": [row % 5 == 0 for row in range(ROWS)],
        "keywords": [["cat", "it's"][: row % 3] or None for row in range(ROWS)],
        "back`tick": ["x"] * ROWS,
        "width": [64] * ROWS,
        "day": [dt.date(2023, 1, 1) + dt.timedelta(days=row) for row in range(ROWS)],
        "taken": pa.array([None, *(START + dt.timedelta(hours=row) for row in range(ROWS - 1))], pa.timestamp("us")),
        "never": pa.nulls(ROWS, pa.timestamp("us")),
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lance.write_dataset(TABLE, str(tmp_path_factory.mktemp("facets") / "t.lance"))


def count(dataset: Any, where: str) -> int:
    found: int = dataset.count_rows(compile_filter(where, TABLE.schema, TABLE.column_names))
    return found


def test_counts_and_their_filters(dataset: Any) -> None:
    facets = facets_of(TABLE.schema, TABLE.column_names, TABLE.column)
    found = {facet.column: facet.values for facet in facets.columns}
    assert found.keys() == {"folder", "camera", "rating", "good", "keywords"}
    for values in found.values():
        for value in values:
            assert count(dataset, value.where) == value.count
    assert {value.value: value.count for value in found["folder"]} == {
        "2024": 40, "2024/a": 20, "2024/b": 10, "it's": 10, "2024/a/c": 10,
    }  # fmt: skip
    assert [value.value for value in found["rating"]] == ["0", "1", "2", "3", "4", "5"]
    words = Counter(word for row in TABLE["keywords"].to_pylist() for word in row or [])
    assert {value.value: value.count for value in found["keywords"]} == words
    assert sum(value.count for value in found["camera"]) == 45


def test_days(dataset: Any) -> None:
    spans = facets_of(TABLE.schema, TABLE.column_names, TABLE.column).spans
    assert [(span.column, span.first, span.last) for span in spans] == [
        ("taken", "2024-05-31", "2024-06-03"), ("day", "2023-01-01", "2023-03-01"),
    ]  # fmt: skip
    moments = [moment for moment in TABLE["taken"].to_pylist() if moment is not None]
    expected = sum(dt.date(2024, 6, 1) <= moment.date() <= dt.date(2024, 6, 2) for moment in moments)
    assert count(dataset, "\"taken\" >= '2024-06-01' AND \"taken\" < '2024-06-03'") == expected


def test_bounds() -> None:
    many = pa.table({f"c{number}": ["x", "x", "y", "y"] for number in range(40)})
    facets = facets_of(many.schema, many.column_names, many.column)
    assert len(facets.columns) == 16
    values = pa.table({"v": [str(row // 2) for row in range(200)]})
    (facet,) = facets_of(values.schema, ["v"], values.column).columns
    assert [value.value for value in facet.values] == sorted(map(str, range(100)))[:12]


def test_of_an_index(indexed: Path) -> None:
    from mcip.retrieval.index import Index

    snapshot = Index(indexed, device="cpu").snapshot()
    assert snapshot.facets is snapshot.facets
    (facet,) = snapshot.facets.columns
    assert [(value.value, value.count) for value in facet.values] == [("a", 24), ("a/b", 12)]
    assert [len(snapshot.browse(100, where=value.where)) for value in facet.values] == [24, 12]
