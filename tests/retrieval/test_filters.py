"""Filters: the rows that they leave, and what is refused, with the place."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import lance
import pyarrow as pa
import pytest

from mcip.core.errors import ConfigError
from mcip.retrieval.filter_parser import MAX_DEPTH, MAX_LENGTH
from mcip.retrieval.filters import compile_filter

UTC: Final = dt.UTC
TEXTS: Final = ["0.png", "it's", 'a "b"', "two\nlines", "back\\slash", "50 %_", "Ä", "", None]
NUMBERS: Final = [0, 1, -1, 5, 127, -128, 100, None, 2]
MOMENTS: Final = [dt.datetime(2024, 5, 31, 18, 30) + dt.timedelta(hours=7 * hours) for hours in range(8)]
ROWS: Final = len(TEXTS)
TABLE: Final = pa.table(
    {
        "id": pa.array(TEXTS),
        "hash": pa.array(["secret"] * ROWS),
        "label": pa.array(TEXTS[::-1], pa.large_string()),
        "i8": pa.array(NUMBERS, pa.int8()),
        "i64": pa.array([2**63 - 1, -(2**63), 0, 1, None, 2**53 + 1, 5, -5, 127]),
        "u64": pa.array([2**64 - 1, 0, 1, 5, None, 2**53, 2**63, 127, 128], pa.uint64()),
        "f64": pa.array([0.1, -0.5, 1e300, 5.0, None, 2.5, 0.0, 127.0, 1e-9]),
        "f32": pa.array([0.1, -0.5, 1e30, 5.0, None, 2.5, 0.0, 127.0, 1e-9], pa.float32()),
        "price": pa.array([Decimal(n).scaleb(-2) for n in (150, 0, -1, 99999999, 500, 12700, 155)] + [None] * 2,
                          pa.decimal128(10, 2)),
        "good": pa.array([True, False, None] * 3),
        "day": pa.array([*(moment.date() for moment in MOMENTS), None]),
        "naive": pa.array([*MOMENTS, None], pa.timestamp("ms")),
        "zoned": pa.array([*(moment.replace(tzinfo=UTC) for moment in MOMENTS), None],
                          pa.timestamp("us", "Europe/Berlin")),
        "clock": pa.array([*(moment.time() for moment in MOMENTS), None], pa.time64("us")),
        "shop": pa.array([None, *({"size": n, "odd name": text} for n, text in zip(NUMBERS[:8], TEXTS, strict=False))],
                         pa.struct({"size": pa.int64(), "odd name": pa.string()})),
        "tags": pa.array([["a", "it's"], ["b"], [], None, ["a"], ["Ä", ""], ["c"], ["d"], ["a", "b"]]),
        "odd name": pa.array(range(ROWS)),
        "date": pa.array([*(moment.date() for moment in MOMENTS), None]),
    }
)  # fmt: skip
SHOWN: Final = [name for name in TABLE.column_names if name != "hash"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lance.write_dataset(TABLE, str(tmp_path_factory.mktemp("filters") / "t.lance"))


def rows(dataset: Any, where: str) -> list[int]:
    """The numbers of the rows that fulfil a filter."""
    condition = compile_filter(where, TABLE.schema, SHOWN)
    numbers: list[int] = dataset.to_table(columns=["odd name"], filter=condition)["odd name"].to_pylist()
    return numbers


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("\"id\" = '0.png'", [0]),
        ("id = 'two\nlines' OR id = 'it''s'", [1, 3]),
        ("id = 'a \"b\"' OR id LIKE 'back\\\\%'", [2, 4]),
        ('`odd name` >= 7 AND "odd name" < 8', [7]),
        ("price > 1.5", [3, 4, 5, 6]),
        ("price = 1.555 OR price > 1e30", []),
        ("i8 < 300 AND i8 > 4.5", [3, 4, 6]),
        ("NOT (i8 <> 1.5)", []),
        ("good AND NOT day IS NULL AND 5 > i8", [0]),
        ("good = FALSE", [1, 4, 7]),
        ("date = DATE '2024-05-31' AND day < '2024-06-01'", [0]),
        ("zoned = '2024-05-31T20:30:00+02:00'", [0]),
        ("zoned = '2024-05-31 20:30'", [0]),
        ("zoned = TIMESTAMP '2024-05-31T18:30:00Z'", [0]),
        ("naive > '2024-06-02T12:29:59.999999999' AND naive < '2024-06-02 12:30:00.0001'", [6]),
        ("naive > '0001-01-01' AND naive < '9999-12-31'", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("clock BETWEEN '18:30' AND '23:00:00'", [0, 4, 7]),
        ('shop.size > 4 AND shop."odd name" IS NOT NULL', [4, 5, 7]),
        ("array_has(tags, 'it''s') OR array_length(tags) = 0", [0, 2]),
        ("lower(id) = 'ä' OR ends_with(id, '%_')", [5, 6]),
        ("length(id) = 0", [7]),
        ("id IN ('Ä', '') AND label NOT IN ('x')", [6, 7]),
        ("i8 IN (1.5, 300, 5)", [3]),
        ("i64 = 9223372036854775807 OR i64 = -9223372036854775808 OR i64 > 9223372036854775807", [0, 1]),
        ("u64 > -1 AND u64 >= 18446744073709551615", [0]),
        ("f32 = 0.1", [0]),
        ("(i8 > 0) = good", [3, 6]),
        ("zoned = zoned AND i8 < u64 AND price < f64", [2]),
    ],
)
def test_rows(dataset: Any, where: str, expected: list[int]) -> None:
    assert rows(dataset, where) == expected


@pytest.mark.parametrize(
    ("where", "at", "reason"),
    [
        ("i8 = 96 f64 = 5", 8, "expected AND, OR or the end, not 'f64'"),
        ("id = '0.png' OR id = '1.png') AND (i8 = 5", 28, "expected AND, OR or the end, not ')'"),
        ("i8 = 96; drop table x", 7, "without a semicolon"),
        ("i8>0 and /*'*/ ascii(substr(hash,1,1)) > 46 and /*'*/ good", 9, "comments"),
        ("i8 > 5 -- x", 7, "comments"),
        ("i8 > 5 -\n- x", 7, "expected AND, OR or the end"),
        ("length(repeat(chr(97),100000000)) > 1", 7, "no function 'repeat'"),
        ("hash = 'a'", 0, "no column 'hash'"),
        ("`hash` = 'a'", 0, "no column 'hash'"),
        ("_rowid = 1", 0, "no column '_rowid'"),
        ("version() = 'a'", 0, "no function 'version'"),
        ("i8 > (SELECT 1)", 13, "closing parenthesis"),
        ("lable = 'a'", 0, "did you mean 'label'"),
        ("I64 = 5", 0, "did you mean 'i64'"),
        ("id = '\ud800'", 6, "half of a character"),
        ('label = "mug"', 8, "Texts stand in 'single quotes'"),
        ("((i8 > 5)", 9, "closing parenthesis, not the end"),
        ("id = 'open", 5, "not closed"),
        ("", 0, "expected a condition"),
        ("()", 1, "expected a value"),
        ("i8 = '5'", 5, "numbers are compared with values such as 5"),
        ("id = 5", 5, "single quotes, such as '5'"),
        ("good = 1", 7, "TRUE or FALSE"),
        ("good < TRUE", 5, "only = and <>"),
        ("i8", 0, "compare it with something"),
        ("1 = 1", 0, "one side of a comparison must be a column"),
        ("TRUE", 0, "a condition is needed"),
        ("id = NULL", 5, "IS NULL"),
        ("i8 = 12abc", 5, "not a number"),
        ("i8 = 1e99999999999999999999", 5, "too large"),
        ("f32 > 1e39", 6, "ends before"),
        ("day > 'May'", 6, "not a date"),
        ("day > TIMESTAMP '2024-05-31'", 6, "not compared with a timestamp"),
        ("naive > '2024-05-31T00:00:00Z'", 8, "without a zone"),
        ("naive = zoned", 8, "naive holds timestamps"),
        ("shop = 1", 0, "a struct of size, odd name"),
        ("shop.colour = 1", 0, "no field of shop 'colour'"),
        ("i8 = id", 5, "i8 holds numbers, id texts"),
        ("i8 LIKE 'a'", 0, "a text is needed"),
        ("lower(id, 'a') = 'b'", 0, "takes 1 argument"),
        ("array_has(id, 'a')", 10, "takes a column of lists"),
        ("i8 IN ()", 7, "expected a value"),
        ("i8 == 5", 4, "expected a value"),
        ("i8 > 1 > 2", 7, "expected AND"),
        ("$1 = 5", 0, "has no meaning"),
        ("(" * (MAX_DEPTH + 1) + "good" + ")" * (MAX_DEPTH + 1), MAX_DEPTH + 1, "levels deep"),
        ("NOT " * 400 + "good", 4 * MAX_DEPTH + 4, "levels deep"),
        ("lower(" * 400 + "id", 6 * MAX_DEPTH + 6, "levels deep"),
    ],
)  # fmt: skip
def test_what_is_refused_with_the_place(where: str, at: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        compile_filter(where, TABLE.schema, SHOWN)
    message, _, caret = str(caught.value).split("\n")
    assert f"at character {at + 1}:" in message
    assert caret.index("^") == 2 + min(at, 40)


def test_long_filters_are_refused_and_those_up_to_the_limit_are_answered(dataset: Any) -> None:
    with pytest.raises(ConfigError, match="has 10,001 characters"):
        compile_filter("x" * (MAX_LENGTH + 1), TABLE.schema, SHOWN)
    many = " OR ".join(["i8=5"] * (MAX_LENGTH // 8))
    assert rows(dataset, many) == [3]
    deep = "NOT (" * (MAX_DEPTH // 2) + "i8 = 5" + ")" * (MAX_DEPTH // 2)
    assert rows(dataset, deep) == [3]


def test_nan_is_the_greatest_number(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([1.0, math.nan, None])})
    dataset = lance.write_dataset(table, str(tmp_path / "t.lance"))
    condition = compile_filter("x > 1e300", table.schema, ["x"])
    assert dataset.to_table(filter=condition, with_row_id=True)["_rowid"].to_pylist() == [1]
