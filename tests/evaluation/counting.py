"""Counts what `mcip.evaluate` measures."""

from __future__ import annotations

from typing import Any

import pytest

from mcip.evaluation import several
from mcip.evaluation.tasks import Task


def count_measured(monkeypatch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> list[str]:
    """The names of the tasks that are measured from now on.

    Args:
        monkeypatch: Undoes it after the test.
        interrupt_at: Interrupt before a task when so many have been measured.
    """
    measured: list[str] = []
    measure = several.__dict__["measure"]

    def counting(session: Any, task: Task, compact: Any = None) -> Any:
        if len(measured) == interrupt_at:
            raise KeyboardInterrupt
        measured.append(task.name)
        return measure(session, task, compact)

    monkeypatch.setattr(several, "measure", counting)
    return measured
