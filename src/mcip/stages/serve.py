"""Serve an index: an HTTP API and a page to search it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from mcip.core.choices import Backend
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices
from mcip.server.client import is_loopback
from mcip.server.local import Note, announced, new_key
from mcip.stages.inputs import IndexInput

if TYPE_CHECKING:
    from mcip.retrieval.index import Index

TOKEN: Final = "MCIP_TOKEN"
_SHORTEST_TOKEN: Final = 16


def serve(
    db: IndexInput,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    model: str | None = None,
    device: str = "auto",
    backend: Backend = "auto",
    max_upload_mb: float = 20,
    max_megapixels: float = 50,
    max_file_mb: float = 256,
    max_k: int = 200,
    max_waiting: int = 256,
    max_connections: int = 600,
    max_connections_per_address: int = 256,
    seconds: float = 20,
    refresh_seconds: float = 5,
) -> str:
    """Serve an index until it is interrupted: an HTTP API and a page for searching by image, by text, or by both.

    A newer version of the index is served as soon as there is one. `mcip search` of the same user on this machine asks
    a server that needs no token, rather than loading the model itself.

    Args:
        db: What `mcip index` made.
        host: The address to listen at. Others than this machine's own are served only with a token.
        port: The port to listen at; 0 takes a free one.
        token: What clients must send as `Authorization: Bearer TOKEN`, and the page asks for; the environment variable
            MCIP_TOKEN if not given, where other users of the machine cannot see it.
        model: The index's model, if it is not where the index says.
        device: Of the model: "auto" takes a GPU if there is one; "cpu", "cuda", "cuda:1", ...
        backend: What embeds queries: "onnx" (on the CPU), "torch", or "auto": the first where there is an ONNX model of
            the index's model; see `mcip search`.
        max_upload_mb: Megabytes of an upload.
        max_megapixels: Millions of pixels of an uploaded image.
        max_file_mb: Megabytes of an indexed image's file that is sent.
        max_k: Images per answer.
        max_waiting: Requests that are worked on at the same time; more are answered with 503.
        max_connections: Open connections; more are answered with 503.
        max_connections_per_address: Those of one client address. Clients behind one proxy share its address.
        seconds: Time to receive a request's header, its body, to answer it, and for a client to take 16 kB of it.
        refresh_seconds: Time between two looks for a newer version of the index.

    Returns:
        The address that was served.

    Raises:
        ArtefactError: There is no index.
        ConfigError: A parameter is out of range, the port is taken, or the extra `mcip[serve]` is not installed.
        ModelError: The model cannot be loaded, or is not the index's.

    Example:
        >>> mcip.serve("photos.lance", port=8001)  # doctest: +SKIP
    """
    check_choices(serve, locals())
    _check(
        max_upload_mb=max_upload_mb, max_megapixels=max_megapixels, max_file_mb=max_file_mb, max_k=max_k,
        max_waiting=max_waiting, max_connections=max_connections,
        max_connections_per_address=max_connections_per_address, seconds=seconds, refresh_seconds=refresh_seconds,
    )  # fmt: skip
    local = is_loopback(host)
    secret = _checked_token(token or os.environ.get(TOKEN) or None, local, host)
    from mcip.core.progress import console

    open_ = _opener(db, model, device, backend)
    try:
        from mcip.server.app import create_app
        from mcip.server.connections import http_server
        from mcip.server.settings import Settings
    except ImportError as error:
        raise ConfigError(
            f"Serving needs packages that are not installed ({error}): pip install 'mcip[serve]'."
        ) from error
    settings = Settings(
        token=secret,
        hosts=frozenset(("localhost", "127.0.0.1", "[::1]", host.lower())) if local and secret is None else None,
        key=new_key() if local and secret is None else None,
        max_upload=int(max_upload_mb * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        max_file=int(max_file_mb * 1e6),
        max_k=max_k,
        max_waiting=max_waiting,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        seconds=seconds,
        refresh_seconds=refresh_seconds,
    )
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    def ready(index: Index) -> None:
        console.print(f"{len(index):,} images can be searched now.", markup=False)

    with _listen(host, port) as listening:
        address = _address(host, listening)
        server = http_server(create_app(open_, settings, ready, stop), settings)
        console.print(f"{_name(db)} is being loaded. The page is at {address}", markup=False, soft_wrap=True)
        with _announced(db, address, settings.key):
            server.run([listening])
    if failures:
        raise failures[0]
    return address


def _announced(db: IndexInput, address: str, key: str | None) -> AbstractContextManager[None]:
    """Let `mcip search` find the server while it runs, where it needs no token."""
    from mcip.retrieval.location import table_location

    if key is None:
        return nullcontext()
    return announced(Note(address, os.getpid(), table_location(_name(db)), key))


def _opener(db: IndexInput, model: str | None, device: str, backend: Backend = "auto") -> Callable[[], Index]:
    """Opens the index, and opens it anew when it is called again.

    Raises:
        ArtefactError: There is no index.
        ConfigError: A model is given for an index that is open already.
    """
    from mcip.retrieval.index import Index, open_index
    from mcip.retrieval.table import open_table

    if not isinstance(db, Index):
        uri = os.fspath(db)
        _ = open_table(uri)
        return lambda: open_index(uri, model, device, backend=backend)
    if model is not None:
        raise ConfigError(f"{db.uri} is open already: give its model to open_index.")
    given = [db]
    return lambda: given.pop() if given else open_index(db.uri, None, device, backend=backend)


def _name(db: IndexInput) -> str:
    """What messages call an index."""
    uri: object = getattr(db, "uri", db)
    return str(uri)


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise ConfigError(f"{name} is {value:g}: it must be above 0.")


def _checked_token(token: str | None, local: bool, host: str) -> str | None:
    if token is None and not local:
        raise ConfigError(
            f"At {host} others can reach the index: set a token, by the environment variable {TOKEN} or by --token, "
            "or leave --host out to serve this machine alone."
        )
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError("The token must be of ASCII letters, digits and signs, without spaces.")
    if token is not None and not local and len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"The token has {len(token)} characters: use {_SHORTEST_TOKEN} or more where others can reach the index, "
            "such as `openssl rand -hex 16` prints."
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port is {port}: it must be from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host} is no address to listen at: {error.strerror or error}.") from error
    try:
        if sys.platform != "win32":
            # A server that is started again gets its port back at once.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} of {host} cannot be taken ({error.strerror or error}): choose another --port."
        ) from error
    return listening


def _address(host: str, listening: socket.socket) -> str:
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"
