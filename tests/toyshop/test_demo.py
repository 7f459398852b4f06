"""The demo indexes its test images with the model that the documented rule puts at the head."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcip.core import optional
from mcip.core.errors import ConfigError
from mcip.stages import index as index_stage
from mcip.toyshop import demo, method


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How the index is made."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(index_stage, "index", lambda data, db, **options: _called(calls, data=data, db=db, **options))
    return calls


def _called(calls: list[dict[str, Any]], **call: Any) -> Any:
    calls.append(call)
    return call["db"]


@dataclass(frozen=True)
class Page:
    """What a run returns of the report."""

    comparison: Any
    notes: list[str] = field(default_factory=list)


@pytest.mark.parametrize(("head", "full"), [("gpr-ft+re-a", False), ("mcip", True), ("base", False)])
def test_the_rule_decides(
    head: str, full: bool, indexed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []
    comparison = SimpleNamespace(headline_model=head, result=lambda name: SimpleNamespace(source=f"models/{name}"))

    def run(*arguments: Any) -> Page:
        runs.append(arguments)
        return Page(comparison)

    monkeypatch.setattr(method, "run", run)
    monkeypatch.setattr(optional, "installed", lambda extra: extra == "search")
    page = demo.demo(tmp_path, full=full)
    assert [call["model"] for call in indexed] == [f"models/{head}"]
    assert str(indexed[0]["db"]) in page.notes[-1]
    world, recipe, out = runs[0]
    expected = (method.FULL_TEST, method.FULL_RECIPE, tmp_path / "full") if full else (method.TEST, method.Recipe())
    assert (world, recipe, out) == (*expected, tmp_path)[:3]
    assert Path(indexed[0]["data"]) == out / "tables" / world.products.file
    monkeypatch.setattr(optional, "installed", lambda extra: extra != "search")
    assert "pip install" in demo.demo(tmp_path, full=full).notes[-1]
    assert len(indexed) == 1


def test_no_product_of_validation_is_in_a_test() -> None:
    for world in (method.TEST, method.FULL_TEST):
        streams = [part.stream for part in vars(world).values()]
        held_out = world.validation()
        assert {held_out.products.stream, held_out.images.stream}.isdisjoint(streams)
        assert held_out.labelled == world.labelled
        assert len({part.file for part in (*vars(world).values(), *vars(held_out).values())}) == 6


def test_quick_is_the_same_in_a_small_world(
    indexed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []

    def run(*arguments: Any) -> Page:
        runs.append(arguments)
        return Page(SimpleNamespace(headline_model=None))

    monkeypatch.setattr(method, "run", run)
    monkeypatch.setattr(optional, "installed", lambda extra: True)
    demo.demo(tmp_path, quick=True)
    assert runs == [(method.QUICK_TEST, method.QUICK_RECIPE, tmp_path / "quick")]
    for name, part in vars(method.QUICK_TEST).items():
        assert 5 * part.products <= getattr(method.TEST, name).products
        assert part.file != getattr(method.TEST, name).file
    assert Path(indexed[0]["data"]) == tmp_path / "quick" / "tables" / method.QUICK_TEST.products.file
    with pytest.raises(ConfigError, match="full or quick"):
        demo.demo(tmp_path, full=True, quick=True)
