"""Several processes of one run on this machine, as torchrun starts them but without its start-up."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from tests.tiny import PRELOADED


def run_together(count: int, function: Callable[..., None], *arguments: Any, ends: int | None = 0) -> list[int | None]:
    """Call `function(*arguments)` in processes that `processes()` knows of each other.

    Args:
        count: How many.
        function: Of a module of the tests.
        arguments: Its arguments.
        ends: The exit code that all of them must have; None takes any.

    Returns:
        Their exit codes, by rank.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    environment = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [
        context.Process(target=_enter, args=({**environment, "RANK": str(rank)}, function, arguments))
        for rank in range(count)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(180)
    codes = [process.exitcode for process in running]
    for process in running:
        process.kill()
    assert ends is None or codes == [ends] * count, codes
    return codes


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _enter(environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment, LOCAL_RANK=environment["RANK"])
    if environment["WORLD_SIZE"] == "1":
        del os.environ["WORLD_SIZE"]
    function(*arguments)
