"""Work that shows its progress stops where its time is up, and nowhere else."""

from __future__ import annotations

import pytest

from mcip.core import time_limit as limits
from mcip.core.progress import progress
from mcip.core.time_limit import TimeIsUpError, time_limit


def test_a_bar_stops_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 102.5, 103.1])
    monkeypatch.setattr(limits.time, "monotonic", lambda: next(clock))
    moved = 0
    with pytest.raises(TimeIsUpError), time_limit(3), progress("work", 9, "pieces") as advance:
        for _ in range(9):
            advance(1)
            moved += 1
    assert moved == 2
    with progress("work without a limit", 1, "pieces") as advance:
        advance(1)


def test_the_inner_limit_counts_in_its_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    with time_limit(10):
        with time_limit(1):
            now = 2.0
            with pytest.raises(TimeIsUpError):
                limits.check_time()
        limits.check_time()
