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


def test_quick_is_the_same_in_a_small_world(
    indexed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[method.World, method.Recipe]] = []
    page = SimpleNamespace(comparison=SimpleNamespace(headline_model="mcip"))
    monkeypatch.setattr(method, "run", lambda world, recipe, out: runs.append((world, recipe)) or page)
    monkeypatch.setattr(optional, "installed", lambda extra: True)
    demo.demo(tmp_path)
    demo.demo(tmp_path, quick=True)
    (full, recipe), (small, quick_recipe) = runs
    assert (recipe.steps, recipe.align_steps) == (900, 300)
    assert (quick_recipe.steps, quick_recipe.align_steps) == (20, 10)
    for name in ("labelled", "captioned", "products", "images"):
        assert 10 * getattr(small, name).products <= 2 * getattr(full, name).products
    assert len(indexed) == 2
