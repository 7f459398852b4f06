"""Filters as trees: a printed one is parsed again, and the engine finds what a naive evaluation finds."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any, Final

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcip.core.errors import ConfigError
from mcip.retrieval.filter_parser import parse_filter
from mcip.retrieval.filter_tree import (
    COMPARISONS,
    Between,
    Call,
    Column,
    Comparison,
    In,
    IsNull,
    Like,
    Literal,
    Logical,
    Node,
    Not,
)
from tests.retrieval.test_filters import MOMENTS, TABLE, TEXTS, UTC, dataset, rows

__all__ = ["dataset"]


# The tree as a text.


def text_of(node: Node) -> str:
    match node:
        case Column():
            return ".".join('"' + name.replace('"', '""') + '"' for name in node.path)
        case Literal():
            if isinstance(node.value, str):
                return f"{node.prefix} '" + node.value.replace("'", "''") + "'"
            return str(node.value)
        case Call():
            return f"{node.name}({', '.join(map(text_of, node.arguments))})"
        case Comparison():
            return f"{text_of(node.left)} {node.operator} {text_of(node.right)}"
        case In():
            return f"{text_of(node.operand)} IN ({', '.join(map(text_of, node.items))})"
        case Between():
            return f"{text_of(node.operand)} BETWEEN {text_of(node.low)} AND {text_of(node.high)}"
        case Like():
            return f"{text_of(node.operand)} {'ILIKE' if node.any_case else 'like'} {text_of(node.pattern)}"
        case IsNull():
            return f"{text_of(node.operand)} is null"
        case Not():
            return f"NOT ({text_of(node.operand)})"
        case Logical():
            return f" {node.operator} ".join(f"({text_of(one)})" for one in node.operands)


# The tree, evaluated row by row with SQL's three truth values: True, False, None.


def value_of(node: Node, row: dict[str, Any]) -> Any:
    match node:
        case Literal(given):
            return given
        case Column(path):
            value = row
            for name in path:
                value = None if value is None else value[name]
            return value
        case Call(name, (first, *others)):
            value = value_of(first, row)
            return None if value is None else CALLS[name](value, *(value_of(one, row) for one in others))
    return truth(node, row)


CALLS: Final[dict[str, Any]] = {
    "lower": str.lower, "upper": str.upper, "length": len, "starts_with": str.startswith, "ends_with": str.endswith,
    "contains": lambda value, part: part in value, "array_has": lambda value, part: part in value,
    "array_length": len,
}  # fmt: skip


def literal_like(literal: Literal, value: Any, column: str) -> Any:
    """A literal as what the value of a column is compared with."""
    given = literal.value
    if column == "f32" and isinstance(given, Decimal):
        return float(np.float32(float(given)))
    if isinstance(value, float):
        return float(given)
    if isinstance(value, dt.datetime):
        moment = dt.datetime.fromisoformat(str(given))
        return moment if value.tzinfo is None or moment.tzinfo else moment.replace(tzinfo=value.tzinfo)
    if isinstance(value, dt.date | dt.time):
        return type(value).fromisoformat(str(given))
    return given


def compared(operator: str, left: Any, right: Any) -> bool:
    return bool({"=": left == right, "<>": left != right, "<": left < right, "<=": left <= right,
                 ">": left > right, ">=": left >= right}[operator])  # fmt: skip


def truth(node: Node, row: dict[str, Any]) -> bool | None:
    match node:
        case Logical(operator, operands):
            values = [truth(one, row) for one in operands]
            decisive = operator == "or"
            return decisive if decisive in values else None if None in values else not decisive
        case Not(operand):
            inner = truth(operand, row)
            return None if inner is None else not inner
        case IsNull(operand):
            return value_of(operand, row) is None
        case Between(operand, low, high):
            parts = (Comparison(">=", operand, low), Comparison("<=", operand, high))
            return truth(Logical("and", parts), row)
        case In(operand, items):
            return truth(Logical("or", tuple(Comparison("=", operand, item) for item in items)), row)
        case Comparison(operator, left, right):
            if isinstance(left, Literal):
                mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
                return truth(Comparison(mirrored.get(operator, operator), right, left), row)
            value = value_of(left, row)
            name = left.path[0] if isinstance(left, Column) else ""
            other = literal_like(right, value, name) if isinstance(right, Literal) else value_of(right, row)
            return None if value is None or other is None else compared(operator, value, other)
        case Like(operand, pattern, any_case):
            value = value_of(operand, row)
            signs = re.findall(r"\\[%_\\]|[\s\S]", str(pattern.value))
            regex = "".join(
                {"%": r"[\s\S]*", "_": r"[\s\S]"}.get(sign, re.escape(sign[-1])) for sign in signs
            )  # fmt: skip
            flags = re.IGNORECASE if any_case else re.NOFLAG
            return None if value is None else re.fullmatch(regex, value, flags) is not None
    value = value_of(node, row)
    assert value is None or isinstance(value, bool)
    return value


def numbers(places: int, ends: tuple[int, ...] = ()) -> st.SearchStrategy[Literal]:
    near = st.sampled_from([-129, -128, -1, 0, 1, 2, 5, 127, 128, 300, 2**53, 2**63 - 1, 2**63, 2**64, *ends])
    shifts = st.sampled_from([Decimal(0), Decimal("0.5"), Decimal("0.1"), Decimal("-0.001")][: places + 1])
    return st.builds(lambda number, shift: Literal(number + shift), near.map(Decimal), shifts)


MOMENT_TEXTS: Final = st.builds(
    lambda moment, shift, part: (moment + dt.timedelta(seconds=shift, microseconds=part)),
    st.sampled_from(MOMENTS), st.sampled_from([0, 0, 1, -1]), st.sampled_from([0, 0, 1, 1500]),
)  # fmt: skip
TEXT: Final = st.one_of(
    st.sampled_from([text for text in TEXTS if text is not None]), st.text("ab'\"\\%_\nÄä", max_size=4)
)
LITERALS: Final[dict[tuple[str, ...], st.SearchStrategy[Literal]]] = {
    ("id",): TEXT.map(Literal),
    ("label",): TEXT.map(Literal),
    ("shop", "odd name"): TEXT.map(Literal),
    ("i8",): numbers(3),
    ("i64",): numbers(3, (-(2**63), -(2**63) - 1)),
    ("u64",): numbers(3, (2**64 - 1,)),
    ("shop", "size"): numbers(1),
    ("f64",): numbers(3),
    ("f32",): numbers(3),
    ("price",): numbers(3, (99999999, 999999, 10**40)),
    ("odd name",): numbers(1),
    ("day",): MOMENT_TEXTS.map(lambda moment: Literal(str(moment.date()))),
    ("naive",): MOMENT_TEXTS.map(lambda moment: Literal(str(moment))),
    ("zoned",): MOMENT_TEXTS.map(lambda moment: Literal(str(moment.replace(tzinfo=UTC)), "timestamp")),
    ("clock",): MOMENT_TEXTS.map(lambda moment: Literal(str(moment.time()))),
}  # fmt: skip
COLUMNS: Final = st.sampled_from(sorted(LITERALS))
OPERATORS: Final = st.sampled_from(COMPARISONS)


def with_literals(path: tuple[str, ...]) -> st.SearchStrategy[Node]:
    column, literal = Column(path), LITERALS[path]
    return st.one_of(
        st.builds(Comparison, OPERATORS, st.just(column), literal),
        st.builds(Comparison, OPERATORS, literal, st.just(column)),
        st.builds(Between, st.just(column), literal, literal),
        st.builds(In, st.just(column), st.lists(literal, min_size=1, max_size=4).map(tuple)),
        st.just(IsNull(column)),
    )


TEXT_COLUMN: Final = st.sampled_from([Column(("id",)), Column(("label",)), Call("lower", (Column(("id",)),))])
# What a backslash before another character means is the engine's affair.
PATTERNS: Final = (
    st.lists(st.sampled_from([*"ab.g'\"%_\nÄ", "\\%", "\\_", "\\\\"]), max_size=4).map("".join).map(Literal)
)
LEAVES: Final = st.one_of(
    COLUMNS.flatmap(with_literals),
    COLUMNS.flatmap(with_literals),
    st.just(Column(("good",))),
    st.builds(Comparison, st.sampled_from(["=", "<>"]), st.just(Column(("good",))), st.booleans().map(Literal)),
    st.builds(Like, TEXT_COLUMN, PATTERNS, st.booleans()),
    st.builds(
        lambda name, column, text: Call(name, (column, Literal(text))),
        st.sampled_from(["starts_with", "ends_with", "contains"]), TEXT_COLUMN, TEXT,
    ),
    TEXT.map(lambda text: Call("array_has", (Column(("tags",)), Literal(text)))),
    st.builds(
        lambda operator, call, number: Comparison(operator, call, Literal(Decimal(number))),
        OPERATORS, st.sampled_from([Call("length", (Column(("id",)),)), Call("array_length", (Column(("tags",)),))]),
        st.integers(-1, 6),
    ),
    st.builds(Comparison, OPERATORS, st.just(Column(("i8",))), st.just(Column(("i64",)))),
    st.builds(Comparison, OPERATORS, TEXT_COLUMN, TEXT_COLUMN),
)  # fmt: skip
TREES: Final = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(Not),
        st.builds(Logical, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@given(tree=TREES)
@settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_any_tree_is_parsed_again_and_the_engine_finds_the_rows_that_it_means(dataset: Any, tree: Node) -> None:
    text = text_of(tree)
    assert parse_filter(text) == tree
    expected = [number for number, row in enumerate(TABLE.to_pylist()) if truth(tree, row)]
    assert rows(dataset, text) == expected


@given(text=st.text("ab01.,'\"`()=<>-+*/;% \n\\#&|!~", max_size=30) | st.text(max_size=20))
@settings(max_examples=300, derandomize=True, database=None)
def test_any_text_is_a_filter_or_an_error_with_its_place(text: str) -> None:
    try:
        tree = parse_filter(text)
    except ConfigError as error:
        place = re.match(r"The filter is wrong at character (\d+): ", str(error))
        if place is None or int(place[1]) > len(text) + 1:
            raise
    else:
        assert parse_filter(text_of(tree)) == tree
