"""A command that is called with a stand-in for its stage, or wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mcip
from mcip.cli.main import main

NEEDED = ["--data", "d.csv", "--out", "runs/x", "--model", "toyshop"]


def calls_of(monkeypatch: pytest.MonkeyPatch, stage: str, result: object = Path("made")) -> list[dict[str, Any]]:
    """Put a stand-in in the place of a stage; what it is called with."""
    calls: list[dict[str, Any]] = []

    def stand_in(**parameters: Any) -> object:
        calls.append(parameters)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setitem(vars(mcip), stage, stand_in)
    return calls


def usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err
