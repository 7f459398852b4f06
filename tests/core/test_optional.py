"""Extras: what each is for, and whether it is there."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcip.core import optional
from mcip.core.errors import ConfigError


def test_each_extra_counts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else object())
    assert optional.installed("search")
    missing.add("ray")
    assert optional.installed("search"), "searching needs no cluster"
    assert not optional.installed("ray")
    missing.add("rabitqlib")
    assert not optional.installed("search")


@pytest.mark.parametrize(
    ("name", "message"), [("lance", "pylance.*index and search images"), ("ray", "ray.*index on a cluster")]
)
def test_what_is_missing_is_named_with_its_purpose(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("mcip.core.optional.importlib.import_module", absent)
    with pytest.raises(ConfigError, match=f"{message}.*pip install 'mcip"):
        optional.module(name)


def test_every_extra_of_users_has_a_purpose() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert optional.EXTRAS.keys() == project["project"]["optional-dependencies"].keys() - {"all", "dev", "docs"}
