"""The demo indexes its test images with the model that the documented rule puts at the head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcip.core import optional
from mcip.stages import index as index_stage
from mcip.toyshop import demo, method


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How the index is made."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(index_stage, "index", lambda data, db, **options: calls.append({"db": db, **options}))
    return calls


@pytest.mark.parametrize("head", ["gpr-ft+re-a", "mcip"])
def test_the_rule_decides(head: str, indexed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = SimpleNamespace(comparison=SimpleNamespace(headline_model=head))
    monkeypatch.setattr(method, "run", lambda world, recipe, out: page)
    monkeypatch.setattr(optional, "installed", lambda extra: extra == "search")
    demo.demo(tmp_path)
    assert [call["model"] for call in indexed] == [str(tmp_path / head / "model")]
    monkeypatch.setattr(optional, "installed", lambda extra: extra != "search")
    demo.demo(tmp_path)
    assert len(indexed) == 1
