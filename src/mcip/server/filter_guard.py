"""Checking a filter that came over the network.

The index's engine knows functions that a stranger must not call: `repeat('a', 1000000000)` alone takes the memory of
the machine. So a filter is read word by word, and only columns, literals, operators and harmless functions pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

from mcip.core.errors import ConfigError

_TOKEN: Final = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)"
    r"|`(?P<quoted>[^`]+)`"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<operator><=|>=|<>|!=|[=<>+\-*/%(),.\[\]])"
)
_WORDS: Final = frozenset(
    (
        "and", "or", "not", "in", "is", "null", "like", "ilike", "escape", "between", "true", "false", "date",
        "timestamp", "case", "when", "then", "else", "end",
    )
)  # fmt: skip
FUNCTIONS: Final = ("lower", "upper", "length", "starts_with", "contains", "array_has", "array_length", "abs", "round")
MAX_LENGTH: Final = 1000
_MAX_DEPTH: Final = 32


def checked_condition(where: str, columns: Collection[str]) -> str:
    """A filter, if it has nothing in it but these columns and what is harmless.

    Args:
        where: An SQL condition.
        columns: The columns that it may use.

    Raises:
        ConfigError: It has other things in it; the message says which.
    """
    if len(where) > MAX_LENGTH:
        raise ConfigError(f"The filter has {len(where)} characters; at most {MAX_LENGTH} are taken.")
    at = depth = 0
    while at < len(where):
        match = _TOKEN.match(where, at)
        if match is None:
            raise ConfigError(
                f"The filter cannot be read from {where[at : at + 20]!r} on: texts stand in 'single quotes', columns "
                "with odd names in `backticks`."
            )
        at = match.end()
        if name := match["quoted"] or match["word"]:
            _check_word(name, match["word"] is not None, columns, where[at:].lstrip().startswith("("))
        depth += {"(": 1, ")": -1}.get(match["operator"] or "", 0)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"The filter has parentheses in parentheses, deeper than {_MAX_DEPTH}.")
    return where


def _check_word(name: str, bare: bool, columns: Collection[str], called: bool) -> None:
    if bare and (name.lower() in _WORDS or (called and name.lower() in FUNCTIONS)):
        return
    if name in columns and not called:
        return
    known = FUNCTIONS if called else columns
    near = get_close_matches(name, known, 1)
    kind = "function" if called else "column"
    hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}."
    raise ConfigError(f"The filter has no {kind} {name!r}{hint} Texts stand in 'single quotes'.")
