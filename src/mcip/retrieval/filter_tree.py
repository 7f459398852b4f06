"""The tree of a filter: columns and literals, what compares them, and what joins conditions."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

COMPARISONS: Final = ("=", "<>", "<", "<=", ">", ">=")


@dataclass(frozen=True)
class Column:
    """A column, or a field of a struct column; `at` is where it stands in the text, as in all nodes."""

    path: tuple[str, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Literal:
    """A number, a text or a truth value; `prefix` is "date" or "timestamp" where the text has one."""

    value: Decimal | str | bool
    prefix: str = ""
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Call:
    """A function of operands; `name` is in lower case."""

    name: str
    arguments: tuple[Node, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Comparison:
    """Two operands, compared by one of `COMPARISONS`."""

    operator: str
    left: Node
    right: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class In:
    """Whether an operand is one of some literals."""

    operand: Node
    items: tuple[Literal, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Between:
    """Whether an operand lies between two others, which are included."""

    operand: Node
    low: Node
    high: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Like:
    """Whether a text fits a pattern: % stands for any characters, _ for one, a backslash before them for themselves."""

    operand: Node
    pattern: Literal
    any_case: bool
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class IsNull:
    """Whether an operand has no value."""

    operand: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    operand: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Logical:
    """Two or more conditions, joined by "and" or "or"."""

    operator: str
    operands: tuple[Node, ...]
    at: int = field(default=0, compare=False)


Node: TypeAlias = Column | Literal | Call | Comparison | In | Between | Like | IsNull | Not | Logical
