"""A server of Milvus, out of the wheel `milvus`, as a process that tests start and kill."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import os
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class Server:
    """Milvus 2.3.5, which only this machine can reach.

    It listens on all interfaces whatever its settings say. So it runs in a network namespace of its own, which has
    nothing but a loopback, and a port on this machine's loopback leads into it.

    Attributes:
        uri: Its address.
    """

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("pymilvus", reason="the extra mcip[milvus] is not installed")
        package = pytest.importorskip("milvus", reason="the wheel milvus, which holds a server, is not installed")
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            pytest.skip("the server of the wheel milvus starts only for root, on Linux")
        # A process or socket is in the namespace of the thread that makes it.
        self._inside = ThreadPoolExecutor(1)
        try:
            self._inside.submit(_leave_network).result()
        except OSError as error:
            pytest.skip(f"a network namespace, to keep Milvus from listening on all interfaces, is refused: {error}")
        config = package.MilvusServerConfig(data_dir=str(folder), proxy_port=19530)
        # The wheel tries its ports in a way that refuses those of a server that was just killed.
        config.try_bind_port = _bind
        self._server = package.MilvusServer(config)
        handler = type(
            "Handler", (socketserver.BaseRequestHandler,), {"handle": lambda one: self._forward(one.request)}
        )
        self._port = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._port.daemon_threads = True
        threading.Thread(target=self._port.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self._port.server_address[1]}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._inside.submit(self._server.start).result()
        except (OSError, RuntimeError, TimeoutError) as error:
            self.kill()
            pytest.skip(f"the server of the wheel milvus does not start here: {error}")

    @property
    def process(self) -> int:
        """The id of its process."""
        return int(self._server.server_proc.pid)

    def kill(self) -> None:
        """Kill it, as a machine that loses its power does."""
        process = self._server.server_proc
        if process is not None:
            process.kill()
            process.wait()
        self._server.stop()

    def close(self) -> None:
        """Kill it, and close its port."""
        self.kill()
        self._port.shutdown()
        self._port.server_close()
        self._inside.shutdown()

    def _forward(self, client: socket.socket) -> None:
        """Hand on what one connection sends, in both directions, until one side closes it."""
        try:
            server = self._inside.submit(socket.create_connection, ("127.0.0.1", 19530)).result()
        except OSError:
            return
        with server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _leave_network() -> None:
    """Move the calling thread into a network namespace of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(2**16):
            target.sendall(content)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


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
