"""Filters as expressions of Milvus: printed from the parsed tree, or refused where Milvus cannot answer them.

Milvus knows true and false alone. So NOT is carried to the conditions on columns, and each of them holds only where the
column has a value: what is neither true nor false in SQL is false here, in whichever way it is negated.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NoReturn

import pyarrow as pa

from mcip.retrieval import filter_tree as tree
from mcip.retrieval.filter_parser import fail, parse_filter
from mcip.retrieval.filter_types import float_literal, steps_of
from mcip.retrieval.filters import MIRRORED, compile_filter
from mcip.retrieval.milvus.columns import ROW, HeldColumn

ALWAYS: Final = f"{ROW} >= 0"
# Where Milvus reads the table itself, it has no row numbers; every image has an id.
ALWAYS_EXTERNAL: Final = 'id >= ""'
_OPPOSITE: Final = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_PRINTED: Final = {"=": "==", "<>": "!="}
_ESCAPED: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LEAST: Final = -(2**63)


def milvus_filter(text: str, schema: pa.Schema, shown: Collection[str], columns: dict[str, HeldColumn]) -> str:
    """Translate a filter to an expression of Milvus with the same meaning.

    Args:
        text: The filter.
        schema: All columns of the table.
        shown: The names of the columns that may be used.
        columns: Those that Milvus holds.

    Raises:
        ConfigError: It is not a filter, does not fit the columns, or Milvus cannot answer it.

    Example:
        >>> schema = pa.schema({"width": pa.int32()})
        >>> columns = {"width": HeldColumn("width", "steps", 0, pa.int32())}
        >>> milvus_filter("NOT width > 99.5", schema, ["width"], columns)
        '(not array_contains(mcip_nulls, 0) and width <= 99)'
    """
    compile_filter(text, schema, shown)
    return _Translator(text, columns).condition(parse_filter(text), True)


class _Translator:
    """Prints the tree of one filter that fits the columns."""

    def __init__(self, text: str, columns: dict[str, HeldColumn]) -> None:
        self.text = text
        self.columns = {"id": HeldColumn("id", "text", -1, pa.string()), **columns}
        external = any(column.external for column in columns.values())
        self.always, self.never = (ALWAYS_EXTERNAL, 'id < ""') if external else (ALWAYS, f"{ROW} < 0")

    def fail(self, node: tree.Node, reason: str) -> NoReturn:
        fail(self.text, node.at, f"{reason}, by which this index is searched; --engine local takes such a filter")

    def condition(self, node: tree.Node, positive: bool) -> str:
        """What holds where a node is true, or where it is false."""
        match node:
            case tree.Logical():
                joined = node.operator if positive else {"and": "or", "or": "and"}[node.operator]
                return "(" + f" {joined} ".join(self.condition(operand, positive) for operand in node.operands) + ")"
            case tree.Not():
                return self.condition(node.operand, not positive)
            case tree.Comparison():
                return self.comparison(node, positive)
            case tree.Between():
                low = tree.Comparison(">=", node.operand, node.low, node.at)
                high = tree.Comparison("<=", node.operand, node.high, node.at)
                return self.condition(tree.Logical("and", (low, high), node.at), positive)
            case tree.In():
                return self.membership(node, positive)
            case tree.Like():
                return self.pattern(node, positive)
            case tree.IsNull():
                column = self.column(node.operand)
                if column.number < 0:
                    return f"({self.never if positive else self.always})"
                return f"({column.missing if positive else column.present})"
            case tree.Call():
                return self.call(node, positive)
        column = self.column(node)
        return known(column, f"{column.name} == {str(positive).lower()}")

    def column(self, node: tree.Node) -> HeldColumn:
        if not isinstance(node, tree.Column):
            self.fail(node, "functions and conditions within a comparison are not known to Milvus")
        if len(node.path) > 1 or node.path[0] not in self.columns:
            self.fail(node, f"the column {'.'.join(node.path)} is not held by Milvus")
        return self.columns[node.path[0]]

    def comparison(self, node: tree.Comparison, positive: bool) -> str:
        operator, left, right = node.operator, node.left, node.right
        if isinstance(left, tree.Literal):
            operator, left, right = MIRRORED[operator], right, left
        if not isinstance(right, tree.Literal):
            self.fail(node, "two columns are not compared by Milvus")
        column = self.column(left)
        operator = operator if positive else _OPPOSITE[operator]
        if column.held != "steps":
            return known(column, f"{column.name} {_PRINTED.get(operator, operator)} {self.literal(right, column)}")
        steps = steps_of(column.type)
        bounded = steps.bounded(operator, steps.number(right.value))
        if isinstance(bounded, bool):
            return known(column, self.always if bounded else self.never)
        operator, number = bounded
        return known(column, f"{column.name} {_PRINTED.get(operator, operator)} {self.integer(right, number)}")

    def membership(self, node: tree.In, positive: bool) -> str:
        column = self.column(node.operand)
        if column.held == "steps":
            steps = steps_of(column.type)
            numbers = [(item, steps.number(item.value)) for item in node.items]
            items = [self.integer(item, math.floor(number)) for item, number in numbers if steps.holds(number)]
        else:
            items = [self.literal(item, column) for item in node.items]
        if not items:
            return known(column, self.never if positive else self.always)
        return known(column, f"{column.name} {'in' if positive else 'not in'} [{', '.join(items)}]")

    def pattern(self, node: tree.Like, positive: bool) -> str:
        if node.any_case:
            self.fail(node, "ILIKE is not known to Milvus")
        column, (text, rest) = self.column(node.operand), _prefix(str(node.pattern.value))
        if rest.strip("%"):
            self.fail(node, "patterns other than a text and then % are not answered by Milvus")
        return self.beginning(column, text, positive) if rest else self.equal(column, text, positive)

    def call(self, node: tree.Call, positive: bool) -> str:
        first, *others = node.arguments
        literal = others[0] if others else None
        if node.name not in ("starts_with", "array_has") or not isinstance(literal, tree.Literal):
            self.fail(node, f"{node.name} is not known to Milvus")
        column = self.column(first)
        if node.name == "starts_with":
            return self.beginning(column, str(literal.value), positive)
        if column.held == "texts":
            element = quote(str(literal.value))
        else:
            element = self.integer(literal, math.floor(steps_of(column.type.value_type).number(literal.value)))
        return known(column, f"{'' if positive else 'not '}array_contains({column.name}, {element})")

    def equal(self, column: HeldColumn, text: str, positive: bool) -> str:
        return known(column, f"{column.name} {'==' if positive else '!='} {quote(text)}")

    def beginning(self, column: HeldColumn, text: str, positive: bool) -> str:
        """Texts that begin with another one lie between it and the first that does not."""
        if not text:
            return known(column, self.always if positive else self.never)
        first, end = quote(text), _after(text)
        if end is None:
            return known(column, f"{column.name} {'>=' if positive else '<'} {first}")
        if positive:
            return known(column, f"{column.name} >= {first} and {column.name} < {quote(end)}")
        return known(column, f"({column.name} < {first} or {column.name} >= {quote(end)})")

    def literal(self, node: tree.Literal, column: HeldColumn) -> str:
        value = node.value
        if isinstance(value, bool):
            return str(value).lower()
        return quote(value) if isinstance(value, str) else float_literal(value, column.type)

    def integer(self, node: tree.Node, number: int) -> str:
        if number == _LEAST:
            self.fail(node, f"the number {_LEAST} is not read by Milvus")
        return str(number)


def known(column: HeldColumn, condition: str) -> str:
    """The condition, and that the column has a value."""
    return f"({condition})" if column.number < 0 else f"({column.present} and {condition})"


def quote(text: str) -> str:
    """A text as a literal of Milvus."""
    return f'"{text.translate(_ESCAPED)}"'


def _prefix(pattern: str) -> tuple[str, str]:
    """The text that a LIKE pattern begins with, and what follows from the first wildcard on."""
    text, at = "", 0
    while at < len(pattern) and pattern[at] not in "%_":
        at += pattern[at] == "\\" and pattern[at + 1 : at + 2] in ("%", "_", "\\")
        text += pattern[at]
        at += 1
    return text, pattern[at:]


def _after(text: str) -> str | None:
    """The least text, by code points, that is greater than all that begin with a text; None if there is none."""
    stem = text.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    # Halves of surrogate pairs are in no text.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)
