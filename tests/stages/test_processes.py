"""No stage writes anything where several processes were started as one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mcip
from mcip import models
from mcip.cli.main import COMMANDS
from mcip.core.errors import ConfigError
from mcip.stages.pretrain import pretrain
from tests.tiny import CONFIG

Stage = Callable[[Path, Path, Path, models.Model], object]

# Those whose processes share the work, those that may run beside each other, and those that write nothing.
OTHERS = {"embed", "mine", "tune", "align", "evaluate"} | {"search", "serve", "mcp"} | {"models", "plan", "doctor"}
STAGES: dict[str, Stage] = {
    "adapt": lambda data, pool, out, model: mcip.adapt(data, out, model),
    "isoclip": lambda data, pool, out, model: mcip.isoclip(model, out, weakest=1),
    "improve": lambda data, pool, out, model: mcip.improve(data, out, model),
    "push": lambda data, pool, out, model: mcip.push(out, "owner/name"),
    "duplicates": lambda data, pool, out, model: mcip.duplicates(out / "photos.lance", out),
    "demo": lambda data, pool, out, model: mcip.demo(out),
    "pretrain": lambda data, pool, out, model: pretrain(data, out, pool),
    "index": lambda data, pool, out, model: mcip.index(data, out, model=model),
    "interpolate": lambda data, pool, out, model: mcip.interpolate(model, model, out),
    "export": lambda data, pool, out, model: mcip.export(model, out, format="open_clip"),
    "report": lambda data, pool, out, model: mcip.report([data], out),
}


def test_every_command_is_one_or_the_other() -> None:
    assert set(COMMANDS) | {"pretrain"} == STAGES.keys() | OTHERS


@pytest.mark.parametrize("name", STAGES)
def test_one_of_several_processes_is_refused_before_it_writes(
    name: str, train: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.from_config(CONFIG, seed=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one of 2 processes"):
        STAGES[name](train, pool, tmp_path / "out", model)
    assert not list(tmp_path.iterdir())


def test_several_processes_may_search(indexed_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(mcip.search(indexed_once, text="a mug", k=2)) == 2


@pytest.fixture
def indexed_once(train: Path, base: Path, tmp_path: Path) -> Path:
    mcip.index(train, tmp_path / "photos.lance", model=base, device="cpu")
    return tmp_path / "photos.lance"
