"""How literals of filters are compared with columns of each Arrow type, and how they are printed for the engine."""

from __future__ import annotations

import datetime
import math
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa

Kind: TypeAlias = Literal[
    "number", "text", "boolean", "date", "timestamp", "zoned timestamp", "time", "list", "struct", "other"
]  # fmt: skip
_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# The fraction of a second has up to nine digits, of which `datetime` reads six.
_FRACTION: Final = re.compile(r"(?<=:\d\d)\.(\d{1,9})(?!\d)")
_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)")


def kind_of(type_: pa.DataType) -> Kind:
    """What a column of this type holds, as far as filters go."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_timestamp(type_):
        return "zoned timestamp" if type_.tz else "timestamp"
    kinds: tuple[tuple[Kind, Callable[[pa.DataType], bool]], ...] = (
        ("number", lambda kind: types.is_integer(kind) or types.is_floating(kind) or types.is_decimal128(kind)),
        ("text", lambda kind: types.is_string(kind) or types.is_large_string(kind)),
        ("boolean", types.is_boolean),
        ("date", types.is_date32),
        ("time", types.is_time),
        ("struct", types.is_struct),
        ("list", lambda kind: types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)),
    )
    return next((name for name, fits in kinds if fits(type_)), "other")


def quoted_text(text: str) -> str:
    """A text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def float_literal(value: Decimal, type_: pa.DataType) -> str:
    """A number as a literal, rounded to a floating-point type.

    Raises:
        ValueError: It lies beyond the range of the type.
    """
    with np.errstate(over="ignore"):
        number = float(np.dtype(type_.to_pandas_dtype()).type(float(value)))
    if not math.isfinite(number):
        raise ValueError(f"the column holds {type_}, which ends before {value}")
    return repr(number)


@dataclass(frozen=True)
class Steps:
    """A type whose values are whole numbers of steps: integers, decimals, days, parts of a second.

    Attributes:
        cast: What the engine compares instead of the column: the number of steps; "" compares the column itself.
        lowest: The smallest value, in steps.
        highest: The largest one.
        literal: Prints a number of steps.
        number: Turns a literal of a filter into steps, perhaps not whole ones; raises ValueError.
        example: How a literal is written.
    """

    cast: str
    lowest: int
    highest: int
    literal: Callable[[int], str]
    number: Callable[[object], Fraction]
    example: str

    def column(self, sql: str) -> str:
        """What the engine compares."""
        return f"CAST({sql} AS {self.cast})" if self.cast else sql

    def holds(self, number: Fraction) -> bool:
        """Whether a value of the type can be this number of steps."""
        return number.denominator == 1 and self.lowest <= number <= self.highest

    def never(self, sql: str) -> str:
        """A condition that no value fulfils, and that is null where the value is."""
        return f"{self.column(sql)} > {self.literal(self.highest)}"

    def always(self, sql: str) -> str:
        """A condition that each value fulfils, and that is null where the value is."""
        return f"{self.column(sql)} <= {self.literal(self.highest)}"

    def bounded(self, operator: str, number: Fraction) -> tuple[str, int] | bool:
        """A comparison with a number of steps, which may lie between two values or beyond all of them.

        Returns:
            The operator and whole steps, or whether every value fulfils the comparison or none does.
        """
        below = math.floor(number)
        if self.holds(number):
            return operator, below
        if operator in ("=", "<>"):
            return operator == "<>"
        greater = operator.startswith(">")
        if below > self.highest:
            return not greater
        if below < self.lowest:
            return greater
        return ">" if greater else "<=", below

    def compare(self, sql: str, operator: str, number: Fraction) -> str:
        """Compare a column with a number of steps."""
        bounded = self.bounded(operator, number)
        if isinstance(bounded, bool):
            return self.always(sql) if bounded else self.never(sql)
        operator, steps = bounded
        return f"{self.column(sql)} {operator} {self.literal(steps)}"


def steps_of(type_: pa.DataType) -> Steps:
    """How a type counts: integers, decimals, dates, times and timestamps."""
    types = pa.types
    if types.is_dictionary(type_):
        return steps_of(type_.value_type)
    if types.is_integer(type_):
        signed = types.is_signed_integer(type_)
        return _counted("", type_.bit_width, lambda value: Fraction(_decimal(value)), "5", signed)
    if types.is_decimal(type_):
        highest, scale = 10**type_.precision - 1, type_.scale

        def literal(steps: int) -> str:
            return f"CAST('{Decimal(f'{steps}E{-scale}'):f}' AS decimal({type_.precision}, {scale}))"

        return Steps("", -highest, highest, literal, lambda value: Fraction(_decimal(value)) * 10**scale, "2.5")
    if types.is_date(type_):
        return _counted("int", 32, _days, "'2024-05-31'")
    per_second = _UNITS[type_.unit]
    if types.is_time(type_):
        bits = type_.bit_width
        return _counted("int" if bits == 32 else "bigint", bits, lambda value: _time(value) * per_second, "'18:30:00'")
    example = f"'2024-05-31T18:30:00{'+02:00' if type_.tz else ''}'"
    return _counted("bigint", 64, lambda value: _seconds(str(value), type_.tz) * per_second, example)


def _counted(
    cast: str, bits: int, number: Callable[[object], Fraction], example: str, signed: bool = True
) -> Steps:  # fmt: skip
    """Steps that are counted by an integer type."""
    highest = 2 ** (bits - signed) - 1
    return Steps(cast, -highest - 1 if signed else 0, highest, _integer_literal, number, example)


def _integer_literal(value: int) -> str:
    # The engine reads the smallest of all as the negative of a number that is too large.
    return str(value) if value > -(2**63) else f"CAST('{value}' AS bigint)"


def _decimal(value: object) -> Decimal:
    assert isinstance(value, Decimal)
    return value


def _days(value: object) -> Fraction:
    try:
        day = datetime.date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("this is not a date such as '2024-05-31'") from None
    return Fraction((day - _EPOCH.date()).days)


def _split_fraction(text: str) -> tuple[str, Fraction]:
    match = _FRACTION.search(text)
    if match is None:
        return text, Fraction(0)
    return text[: match.start()] + text[match.end() :], Fraction(int(match[1]), 10 ** len(match[1]))


def _time(value: object) -> Fraction:
    text, fraction = _split_fraction(str(value))
    try:
        time = datetime.time.fromisoformat(text)
    except ValueError:
        raise ValueError("this is not a time such as '18:30:00'") from None
    if time.tzinfo is not None:
        raise ValueError("the column holds times without a zone: leave the zone out")
    return time.hour * 3600 + time.minute * 60 + time.second + fraction


def _seconds(value: str, zone: str | None) -> Fraction:
    """Seconds from 1970 on, in UTC where the column has a zone."""
    text, fraction = _split_fraction(value)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("this is not a date and time such as '2024-05-31T18:30:00'") from None
    if zone is None and moment.tzinfo is not None:
        raise ValueError("the column holds timestamps without a zone: leave the zone out")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_zone(zone) if zone else datetime.UTC)
    since = moment - _EPOCH
    return since.days * 86_400 + since.seconds + fraction


def _zone(name: str) -> datetime.tzinfo:
    """A zone by the name that Arrow has for it, or by its offset."""
    if match := _OFFSET.fullmatch(name):
        offset = datetime.timedelta(hours=int(match[2]), minutes=int(match[3]))
        return datetime.timezone(-offset if match[1] == "-" else offset)
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"the column's time zone {name!r} is not known here: give the zone in the text") from None
