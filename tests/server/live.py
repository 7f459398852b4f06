"""A server in a thread, on a port of its own, for clients that need a real one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fastapi.testclient import TestClient

from mcip.retrieval.index import open_index
from mcip.server.app import create_app
from mcip.server.connections import http_server
from mcip.server.settings import Settings

TOKEN = "correct-horse-battery"


def wait_until_ready(client: TestClient) -> TestClient:
    """Wait until the index is open."""
    deadline = time.monotonic() + 60
    while client.get("/healthz").status_code != 200:
        assert time.monotonic() < deadline, "the index was not opened in time"
        time.sleep(0.01)
    return client


@contextlib.contextmanager
def running(db: Path, settings: Settings | None = None) -> Iterator[str]:
    """Serve an index while the block runs; the block gets the address."""
    ready = threading.Event()
    app = create_app(lambda: open_index(db, device="cpu"), settings, lambda _: ready.set())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = http_server(app, settings or Settings())
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert ready.wait(60), "the index was not opened in time"
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
