"""Extras: what each is for, and whether it is there."""

from __future__ import annotations

import importlib.util
import json
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


def test_what_is_broken_is_told_and_what_is_missing_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "built_for_another.py").write_text("raise ValueError('numpy.dtype size changed')")
    (tmp_path / "lacks_another.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    assert optional.module_or_none("not_there_at_all") is None
    assert optional.module_or_none("json") is json
    for name, why in (("built_for_another", "size changed"), ("lacks_another", "not_there_at_all")):
        with pytest.raises(ConfigError, match=f"{name} is installed, but cannot be imported .*{why}"):
            optional.module_or_none(name)
