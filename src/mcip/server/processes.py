"""A server of one process, or of several that share its address, since one interpreter uses little more than a core."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Final

from mcip.core.errors import McipError, ProcessError
from mcip.retrieval.index import Index
from mcip.server.app import create_app
from mcip.server.connections import http_server
from mcip.server.metrics import SHARED_NUMBERS
from mcip.server.settings import Settings

log = logging.getLogger("mcip.serve")
# Seconds beyond those for an answer in which a process may end before it is killed.
_TO_END: Final = 10.0
# What a process says when it has loaded the index. None answers until all have: a client shall not get an answer from
# one, and then from another that it is loading.
_LOADED: Final = "loaded"


def run_server(
    open_index: Callable[[], Index],
    settings: Settings,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[int], None],
) -> None:
    """Answer requests until a signal: a process for each socket, this one if there is but one.

    Args:
        open_index: Opens the index; picklable where there are several sockets.
        settings: Limits of all processes together.
        sockets: Where to listen, see `mcip.server.listen`.
        on_ready: Called with the number of images when all processes can answer.

    Raises:
        McipError: The index cannot be opened.
        ProcessError: One of several processes has ended by itself; the others are ended too.
    """
    if len(sockets) == 1:
        _run_here(open_index, settings, sockets[0], on_ready)
        return
    received = None
    with tempfile.TemporaryDirectory(prefix="mcip-numbers-") as numbers:
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // len(sockets)))
        children: list[tuple[SpawnProcess, Connection]] = []
        try:
            with _stopped_by_signals():
                with _environment({SHARED_NUMBERS: numbers, "OMP_NUM_THREADS": threads}):
                    for listening in sockets:
                        children.append(_start(open_index, settings.shared_by(len(sockets)), listening))
                _watch(children, on_ready)
        except _Stopped as stopped:
            received = stopped.signal
        finally:
            _end(children, settings.seconds + _TO_END)
    if received is not None:
        # What the signal does to a server of one process.
        signal.raise_signal(received)


def _run_here(
    open_index: Callable[[], Index],
    settings: Settings,
    listening: socket.socket,
    on_ready: Callable[[int], None],
    wait_for_others: Callable[[], object] | None = None,
) -> None:
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(open_index, settings, lambda index: on_ready(len(index)), stop, wait_for_others)
    server = http_server(app, settings)
    server.run([listening])
    if failures:
        raise failures[0]


def _start(
    open_index: Callable[[], Index], settings: Settings, listening: socket.socket
) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_work, args=(open_index, settings, listening, child_end), daemon=True)
    process.start()
    # Each socket has one owner: connections to one that nobody reads from would wait for ever.
    listening.close()
    child_end.close()
    return process, parent_end


def _work(open_index: Callable[[], Index], settings: Settings, listening: socket.socket, first: Connection) -> None:
    """One of several processes: tells the first one that it has loaded, how many images, or why it ends."""

    def wait_for_others() -> None:
        first.send(_LOADED)
        first.recv()

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _run_here(open_index, settings, listening, first.send, wait_for_others)
    except EOFError:
        # Another one failed while this one waited, and has said why.
        pass
    except McipError as error:
        first.send(error)
    except Exception as error:
        log.exception("A process of the server failed.")
        first.send(ProcessError(f"A process of the server failed: {error!r}"))
    except KeyboardInterrupt:
        # A terminal sends it to all processes; the first one tells that it was there.
        pass


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _watch(children: Sequence[tuple[SpawnProcess, Connection]], on_ready: Callable[[int], None]) -> None:
    """Let all processes answer when they have loaded; then wait until one ends, which is an error."""
    reports = {connection: process for process, connection in children}
    sentinels = {process.sentinel: process for process, _ in children}
    loaded, images = 0, list[int]()
    while True:
        events = wait([*reports, *sentinels])
        for connection in [event for event in events if isinstance(event, Connection)]:
            try:
                report = connection.recv()
            except EOFError:
                del reports[connection]
                continue
            if isinstance(report, BaseException):
                raise report
            if report == _LOADED:
                loaded += 1
                if loaded == len(children):
                    for _, each in children:
                        each.send(_LOADED)
            else:
                images.append(report)
                if len(images) == len(children):
                    on_ready(report)
        for process in [sentinels[event] for event in events if isinstance(event, int)]:
            if process not in reports.values():
                process.join()
                raise ProcessError(
                    f"A process of the server ended by itself ({process.exitcode}): start the server again."
                )


def _end(children: Sequence[tuple[SpawnProcess, Connection]], seconds: float) -> None:
    for process, connection in children:
        process.terminate()
        connection.close()
    for process, _ in children:
        process.join(seconds)
        process.kill()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Stopped(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM leave the block as an exception."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
