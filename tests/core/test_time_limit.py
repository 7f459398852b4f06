"""Work that shows its progress stops where its time is up, and nowhere else."""

from __future__ import annotations

import time

import pytest

from mcip.core.progress import progress
from mcip.core.time_limit import TimeIsUpError, check_time, time_limit


def test_a_bar_stops_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 102.5, 103.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with time_limit(3), progress("work", 9, "pieces") as advance:
        advance(1)
        advance(1)
        with pytest.raises(TimeIsUpError):
            advance(1)
    with progress("work without a limit", 1, "pieces") as advance:
        advance(1)


def test_the_inner_limit_counts_in_its_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with time_limit(10):
        with time_limit(1):
            now = 2.0
            with pytest.raises(TimeIsUpError):
                check_time()
        check_time()
