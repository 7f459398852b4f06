"""Rows that results show, read from the buffers of their columns, are what Arrow says they are."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mcip.retrieval.index import Index
from mcip.retrieval.shown_rows import readers

UNITS = ("s", "ms", "us", "ns")
COLUMNS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", "", "Übergröße", "犬 🐕", "x" * 300]),
    (pa.string(), ["", "", "", "", ""]),
    (pa.large_string(), ["a", "b", "", "c", "d"]),
    (pa.int32(), [1, -(2**31), 2**31 - 1, 0, 5]),
    (pa.int64(), [2**62, -(2**63), 2**63 - 1, 0, 5]),
    (pa.uint64(), [2**64 - 1, 2**63, 0, 1, 2]),
    (pa.uint8(), [255, 0, 1, 2, 3]),
    (pa.float64(), [0.1, float("inf"), -0.0, 1e300, 2.0]),
    (pa.float32(), [0.5, float("inf"), -0.0, 1e30, 2.0]),
    (pa.bool_(), [True, False, True, True, False]),
    (pa.timestamp("us", "UTC"), [datetime.datetime(2024, 6, day, tzinfo=datetime.UTC) for day in range(1, 6)]),
    *((pa.timestamp(unit), [datetime.datetime(2024, 6, day, 1, 2, 3) for day in range(1, 6)]) for unit in UNITS),
    (pa.date32(), [datetime.date(2024, 6, day) for day in range(1, 6)]),
    (pa.decimal128(9, 2), [Decimal("1.25"), Decimal("-3.00"), Decimal("0.01"), Decimal("9.99"), Decimal("5.00")]),
    (pa.list_(pa.string()), [["a"], [], ["b", None], ["c", "d"], ["e"]]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a", "b", "a"]),
]


@pytest.mark.parametrize("gaps", ["none", "some", "all"])
@pytest.mark.parametrize(("type_", "values"), COLUMNS, ids=lambda value: str(value)[:12])
def test_values_are_those_of_arrow(type_: pa.DataType, values: list[Any], gaps: str) -> None:
    present = {"none": values, "some": [values[0], None, *values[2:4], None], "all": [None] * 5}[gaps]
    whole = pa.table({"id": list("abcde"), "value": pa.array(present, type_)})
    # As they are read from a table: in several chunks, and in parts of longer arrays.
    for table in (whole, pa.concat_tables([whole.slice(2), whole.slice(0, 2)]), whole.slice(1, 3)):
        read = readers(table.combine_chunks())
        rng = np.random.default_rng(0)
        for size in (0, 1, 3, 9):
            positions = rng.integers(0, len(table), size)
            expected = table.take(pa.array(positions)).to_pydict()
            actual = {name: values(positions) for name, values in read.items()}
            assert actual == expected
            assert [type(value) for value in actual["value"]] == [type(value) for value in expected["value"]]


def test_an_index_too_large_for_memory_shows_the_same(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Index(indexed, device="cpu")
    monkeypatch.setattr("mcip.retrieval.shown_rows._IN_MEMORY", 0)
    index = Index(indexed, device="cpu")
    assert index.browse(100).hits == expected.browse(100).hits
    first = expected.browse(1)[0].id
    assert index.similar(first, 5).hits == expected.similar(first, 5).hits
    assert index.snapshot().facets == expected.snapshot().facets
    assert index.browse(3, 1000).hits == ()
