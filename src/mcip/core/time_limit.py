"""A limit on the time of work: what shows its progress stops where the time is up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar


class TimeIsUpError(Exception):
    """The time of the enclosing `time_limit` is up."""


_end: ContextVar[float | None] = ContextVar("end of the time", default=None)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let `check_time` raise in the block, in this thread, once it has run for so many seconds.

    Example:
        >>> with time_limit(60):
        ...     check_time()
    """
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def check_time() -> None:
    """Raise where the time is up; every progress bar does so when it moves on.

    Raises:
        TimeIsUpError: It is.
    """
    end = _end.get()
    if end is not None and time.monotonic() >= end:
        raise TimeIsUpError
