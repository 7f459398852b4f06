"""Filters over the columns of an index: the same grammar and meaning in the command, the API and the page.

What a person wrote never reaches the engine. It is parsed to a tree, the tree is checked against the columns, and a
condition for the engine is printed from the tree, with quoted names and with literals of the columns' types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from fractions import Fraction
from typing import Final, NoReturn, TypeVar

import pyarrow as pa

from mcip.retrieval import filter_tree as tree
from mcip.retrieval.filter_parser import fail, parse_filter
from mcip.retrieval.filter_types import Kind, Steps, float_literal, kind_of, quoted_text, steps_of

Value = TypeVar("Value")
MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
# Each function: the kind of its first argument, whether a literal follows, and what it returns.
FUNCTIONS: Final[dict[str, tuple[Kind, bool, pa.DataType]]] = {
    "lower": ("text", False, pa.string()),
    "upper": ("text", False, pa.string()),
    "length": ("text", False, pa.int32()),
    "starts_with": ("text", True, pa.bool_()),
    "ends_with": ("text", True, pa.bool_()),
    "contains": ("text", True, pa.bool_()),
    "array_has": ("list", True, pa.bool_()),
    "array_length": ("list", False, pa.uint64()),
}


def compile_filter(text: str, schema: pa.Schema, shown: Collection[str]) -> str:
    """Translate a filter to a condition that the engine takes.

    NaN counts as greater than every number; a condition on a missing value is neither true nor false, as in SQL.

    Args:
        text: The filter, such as "year > 2015 AND label = 'mug'"; `mcip.retrieval.filter_parser` has the grammar.
        schema: All columns of the table.
        shown: The names of the columns that may be used; the others do not exist for the filter.

    Raises:
        ConfigError: It is not a filter, or does not fit the columns; the message shows the place.

    Example:
        >>> schema = pa.schema({"width": pa.int32(), "taken": pa.date32()})
        >>> compile_filter("width > 99.5 AND taken IS NOT NULL", schema, ["width", "taken"])
        '(`width` > 99) AND (NOT (`taken` IS NULL))'
    """
    return _Compiler(text, schema, list(shown)).condition(parse_filter(text))


class _Compiler:
    """Prints the tree of one filter."""

    def __init__(self, text: str, schema: pa.Schema, shown: Sequence[str]) -> None:
        self.text = text
        self.schema = schema
        self.shown = [name for name in shown if name in schema.names]

    def fail(self, node: tree.Node, reason: str) -> NoReturn:
        fail(self.text, node.at, reason)

    def condition(self, node: tree.Node) -> str:
        """The condition of a node that is true or false."""
        match node:
            case tree.Logical():
                return f" {node.operator.upper()} ".join(f"({self.condition(operand)})" for operand in node.operands)
            case tree.Not():
                return f"NOT ({self.condition(node.operand)})"
            case tree.Comparison():
                return self.comparison(node.operator, node.left, node.right, node)
            case tree.Between():
                low = self.comparison(">=", node.operand, node.low, node)
                return f"({low}) AND ({self.comparison('<=', node.operand, node.high, node)})"
            case tree.In():
                return self.membership(node)
            case tree.Like():
                sql = self.text_value(node.operand)
                return f"{sql} {'ILIKE' if node.any_case else 'LIKE'} {self.text_value(node.pattern)}"
            case tree.IsNull():
                return f"{self.value(node.operand)[0]} IS NULL"
            case tree.Literal():
                self.fail(node, "a condition is needed here, such as a comparison with a column")
        sql, kind = self.value(node)
        if kind_of(kind) != "boolean":
            self.fail(node, f"{_named(node)} is not true or false: compare it with something")
        return sql

    def value(self, node: tree.Node) -> tuple[str, pa.DataType]:
        """What a node that is not a literal is for the engine, and its type."""
        match node:
            case tree.Column():
                return self.column(node)
            case tree.Call():
                return self.call(node)
            case tree.Literal():
                self.fail(node, "a column is needed here, not a value")
        return f"({self.condition(node)})", pa.bool_()

    def column(self, node: tree.Column) -> tuple[str, pa.DataType]:
        names, kind = self.shown, pa.struct([self.schema.field(name) for name in self.shown])
        for depth, name in enumerate(node.path):
            if name not in names:
                self.unknown(node, "column" if depth == 0 else f"field of {'.'.join(node.path[:depth])}", name, names)
            if "`" in name:
                self.fail(node, "a column whose name has a backtick cannot be used in a filter")
            kind = kind.field(name).type
            names = [kind.field(at).name for at in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        return ".".join(f"`{name}`" for name in node.path), kind

    def call(self, node: tree.Call) -> tuple[str, pa.DataType]:
        if node.name not in FUNCTIONS:
            self.unknown(node, "function", node.name, list(FUNCTIONS))
        kind, has_literal, returned = FUNCTIONS[node.name]
        if len(node.arguments) != 1 + has_literal:
            self.fail(node, f"{node.name} takes {1 + has_literal} argument{'s' if has_literal else ''}")
        first, *others = node.arguments
        if kind == "text":
            return f"{node.name}({', '.join(self.text_value(operand) for operand in node.arguments)})", returned
        sql, actual = self.value(first)
        if kind_of(actual) != "list":
            self.fail(first, f"{node.name} takes a column of lists; {_named(first)} holds {_holds(actual)}")
        arguments = [sql, *(self.element(operand, actual.value_type) for operand in others)]
        return f"{node.name}({', '.join(arguments)})", returned

    def element(self, node: tree.Node, kind: pa.DataType) -> str:
        """A literal that a list may hold."""
        if not isinstance(node, tree.Literal):
            self.fail(node, "a value is needed here, not a column")
        if kind_of(kind) == "number" and not pa.types.is_floating(kind):
            steps, number = self.steps(node, kind)
            if not steps.holds(number):
                self.fail(node, f"the list holds {kind}, which cannot be {node.value}")
            return steps.literal(math.floor(number))
        if kind_of(kind) not in ("number", "text", "boolean"):
            self.fail(node, f"lists of {kind} cannot be searched by a filter")
        literal = self.plain(node, kind)
        return f"CAST({literal} AS float)" if pa.types.is_float32(kind) else literal

    def text_value(self, node: tree.Node) -> str:
        """A text: a column, a function or a literal."""
        if isinstance(node, tree.Literal):
            return self.plain(node, pa.string())
        sql, kind = self.value(node)
        if kind_of(kind) != "text":
            self.fail(node, f"a text is needed here, but {_named(node)} holds {_holds(kind)}")
        return sql

    def comparison(self, operator: str, left: tree.Node, right: tree.Node, node: tree.Node) -> str:
        if isinstance(left, tree.Literal):
            if isinstance(right, tree.Literal):
                self.fail(left, "one side of a comparison must be a column")
            return self.comparison(MIRRORED[operator], right, left, node)
        sql, kind = self.value(left)
        if kind_of(kind) in ("list", "struct", "other"):
            self.fail(left, f"{_named(left)} holds {_holds(kind)} and cannot be compared")
        if kind_of(kind) == "boolean" and operator not in ("=", "<>"):
            self.fail(node, f"{_named(left)} is true or false: only = and <> compare such values")
        if not isinstance(right, tree.Literal):
            return self.columns(operator, (sql, kind), right, left)
        if kind_of(kind) in ("text", "boolean") or pa.types.is_floating(kind):
            return f"{_widened(sql, kind)} {operator} {self.plain(right, kind)}"
        steps, number = self.steps(right, kind)
        return steps.compare(sql, operator, number)

    def columns(self, operator: str, left: tuple[str, pa.DataType], right: tree.Node, node: tree.Node) -> str:
        """Compare two columns."""
        (sql, kind), (other, other_kind) = left, self.value(right)
        if kind_of(kind) != kind_of(other_kind):
            self.fail(right, f"{_named(node)} holds {_holds(kind)}, {_named(right)} {_holds(other_kind)}")
        whole = pa.types.is_integer(kind) and pa.types.is_integer(other_kind)
        if kind_of(kind) == "number" and kind != other_kind and not whole:
            sql, other = f"CAST({sql} AS double)", f"CAST({other} AS double)"
        return f"{sql} {operator} {other}"

    def membership(self, node: tree.In) -> str:
        sql, kind = self.value(node.operand)
        if kind_of(kind) in ("list", "struct", "other"):
            self.fail(node.operand, f"{_named(node.operand)} holds {_holds(kind)} and cannot be compared")
        if kind_of(kind) in ("text", "boolean") or pa.types.is_floating(kind):
            items = [self.plain(item, kind) for item in node.items]
            return f"{_widened(sql, kind)} IN ({', '.join(items)})"
        numbers = [self.steps(item, kind) for item in node.items]
        steps = numbers[0][0]
        items = [steps.literal(math.floor(number)) for _, number in numbers if steps.holds(number)]
        return f"{steps.column(sql)} IN ({', '.join(items)})" if items else steps.never(sql)

    def plain(self, node: tree.Literal, kind: pa.DataType) -> str:
        """A literal for a column of texts, truth values or floating-point numbers."""
        value = node.value
        if kind_of(kind) == "text":
            if not isinstance(value, str) or node.prefix:
                self.fail(node, f"texts are compared with texts in single quotes, such as {quoted_text(str(value))}")
            return quoted_text(value)
        if kind_of(kind) == "boolean":
            if not isinstance(value, bool):
                self.fail(node, "TRUE or FALSE is needed here")
            return str(value).upper()
        if isinstance(value, bool | str):
            self.fail(node, "numbers are compared with values such as 2.5")
        return self.checked(node, lambda: float_literal(value, kind))

    def steps(self, node: tree.Literal, kind: pa.DataType) -> tuple[Steps, Fraction]:
        """How a column's type counts, and a literal in these steps."""
        steps, known = steps_of(kind), kind_of(kind)
        if isinstance(node.value, bool) or isinstance(node.value, str) != (known != "number"):
            self.fail(node, f"{_holds(kind)} are compared with values such as {steps.example}")
        if node.prefix and not known.endswith(node.prefix):
            self.fail(node, f"{_holds(kind)} are not compared with a {node.prefix}: write {steps.example}")
        return steps, self.checked(node, lambda: steps.number(node.value))

    def checked(self, node: tree.Node, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (ValueError, OverflowError) as error:
            self.fail(node, str(error))

    def unknown(self, node: tree.Node, kind: str, name: str, known: Sequence[str]) -> NoReturn:
        near = [other for other in known if other.lower() == name.lower()] or get_close_matches(name, known, 1)
        hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(known) or 'none'}."
        self.fail(node, f"there is no {kind} {name!r}{hint} Texts stand in 'single quotes'")


def _widened(sql: str, kind: pa.DataType) -> str:
    """A floating-point column at the precision in which its literals are printed."""
    return f"CAST({sql} AS double)" if kind in (pa.float16(), pa.float32()) else sql


def _named(node: tree.Node) -> str:
    if isinstance(node, tree.Column):
        return ".".join(node.path)
    return f"{node.name}(...)" if isinstance(node, tree.Call) else "the condition"


def _holds(kind: pa.DataType) -> str:
    known = kind_of(kind)
    if known == "struct":
        return f"a struct of {', '.join(kind.field(at).name for at in range(kind.num_fields))}"
    return {"boolean": "truth values", "other": str(kind)}.get(known, f"{known}s")
