"""A server of Milvus, out of the wheel `milvus`, as a process that tests start and kill."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class Server:
    """Milvus 2.3.5.

    Attributes:
        uri: Its address.
    """

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("pymilvus", reason="the extra mcip[milvus] is not installed")
        package = pytest.importorskip("milvus", reason="the wheel milvus, which holds a server, is not installed")
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            pytest.skip("the server of the wheel milvus starts only for root, on Linux")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = package.MilvusServerConfig(data_dir=str(folder), proxy_port=port)
        # The wheel tries its ports in a way that refuses those of a server that was just killed.
        config.try_bind_port = _bind
        self._server = package.MilvusServer(config)
        self.uri = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._server.start()
        except (OSError, RuntimeError, TimeoutError) as error:
            self.kill()
            pytest.skip(f"the server of the wheel milvus does not start here: {error}")

    def kill(self) -> None:
        """Kill it, as a machine that loses its power does."""
        process = self._server.server_proc
        if process is not None:
            process.kill()
            process.wait()
        self._server.stop()


def _bind(port: int) -> socket.socket | None:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
        bound.listen()
    except OSError:
        bound.close()
        return None
    return bound


@contextlib.contextmanager
def faiss_of_numpy() -> Iterator[None]:
    """Within the block faiss, by which milvus-lite searches, is as it was before another test's import changed it.

    `faiss.contrib.torch_utils`, which pytorch-metric-learning imports, replaces methods of its classes by others.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in [kind for kind in vars(sys.modules.get("faiss", object)).values() if isinstance(kind, type)]:
            for name in [name for name in vars(kind) if name.endswith("_numpy")]:
                patch.setattr(kind, name.removesuffix("_numpy"), getattr(kind, name))
        yield
