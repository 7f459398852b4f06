"""Functions that run in a process of their own, short of room on the disk or in memory."""

from __future__ import annotations

import multiprocessing
import re
import resource
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mcip.core.errors import McipError
from tests.tiny import PRELOADED

STATUS = Path("/proc/self/status")


def with_small_files(
    largest: int, function: Callable[..., object], *args: Any, start: str = "fork", **kwargs: Any
) -> str:
    """Call a function where no file can grow beyond `largest` bytes; the message of the error it raises, or "".

    What trains needs `start="forkserver"`: a fork of a process that has trained in threads cannot train.
    """
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest, largest))
    return _in_a_process(limit, partial(function, *args, **kwargs), start)


def with_little_memory(extra: int, function: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The same where memory that is not mapped from files can grow by no more than `extra` bytes."""

    def limit() -> None:
        found = re.search(r"VmData:\s+(\d+) kB", STATUS.read_text())
        assert found
        most = int(found[1]) * 1024 + extra
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    return _in_a_process(limit, partial(function, *args, **kwargs))


def _in_a_process(limit: Callable[[], None], call: Callable[[], object], start: str = "fork") -> str:
    context: Any = multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload(list(PRELOADED))
    parent, child = context.Pipe()
    process = context.Process(target=_answer, args=(limit, call, child))
    process.start()
    assert parent.poll(120)
    message = str(parent.recv())
    process.join()
    return message


def _answer(limit: Callable[[], None], call: Callable[[], object], answer: Connection) -> None:
    torch.set_num_threads(1)  # as in the tests' own process
    limit()
    try:
        call()
    except McipError as error:
        answer.send(str(error))
    except BaseException as error:
        answer.send(f"{type(error)} {error}")
    else:
        answer.send("")
