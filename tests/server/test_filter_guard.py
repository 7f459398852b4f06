"""Filters from the network: columns, literals, operators and harmless functions pass, all else does not."""

from __future__ import annotations

import pytest

from mcip.core.errors import ConfigError
from mcip.server.filter_guard import FUNCTIONS, checked_condition


@pytest.mark.parametrize(
    "where",
    ["width > 5", "shape = 'it''s' AND NOT (label LIKE 'a%' OR `odd name` IN (1, 2.5e3))", "lower(shape) <> 'x'",
     "width BETWEEN 1 AND 2 OR shape IS NOT NULL", "array_has(captions, 'repeat(')"],
)  # fmt: skip
def test_conditions_that_pass(where: str) -> None:
    assert checked_condition(where, ["width", "shape", "label", "odd name", "captions"]) == where


@pytest.mark.parametrize(
    "where",
    ["repeat('a', 9) = 'a'",
     "width > (SELECT 1)", "width; DROP TABLE", "hash = 'a'", "width > 5 -- x", "`repeat`(1) > 0",
     'shape = "mug"', "'open", "(" * 40, "random() > 0", "_rowid = 1", "x" * 1001],
)  # fmt: skip
def test_conditions_that_do_not_pass(where: str) -> None:
    with pytest.raises(ConfigError):
        checked_condition(where, ["width", "shape"])
    assert "repeat" not in FUNCTIONS
