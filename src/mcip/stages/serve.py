"""Serve an index: an HTTP API and a page to search it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
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
    processes: int = 1,
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
        processes: Processes that answer, on Linux. One uses little more than a core; each loads the index and the model
            itself, and has its share of the limits and of the cores.

    Returns:
        The address that was served.

    Raises:
        ArtefactError: There is no index.
        ConfigError: A parameter is out of range, the port is taken, or the extra `mcip[serve]` is not installed.
        ModelError: The model cannot be loaded, or is not the index's.
        ProcessError: One of several processes has ended by itself.

    Example:
        >>> mcip.serve("photos.lance", port=8001)  # doctest: +SKIP
    """
    check_choices(serve, locals())
    _check(
        max_upload_mb=max_upload_mb, max_megapixels=max_megapixels, max_file_mb=max_file_mb, max_k=max_k,
        max_waiting=max_waiting, max_connections=max_connections,
        max_connections_per_address=max_connections_per_address, seconds=seconds, refresh_seconds=refresh_seconds,
        processes=processes,
    )  # fmt: skip
    local = is_loopback(host)
    secret = _checked_token(token or os.environ.get(TOKEN) or None, local, host)
    from mcip.core.progress import console

    open_ = _opener(db, model, device, backend, processes)
    try:
        from mcip.server.listen import address_of, listen
        from mcip.server.processes import run_server
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

    def ready(images: int) -> None:
        console.print(f"{images:,} images can be searched now.", markup=False)

    with ExitStack() as stack:
        sockets = [stack.enter_context(listening) for listening in listen(host, port, processes)]
        address = address_of(host, sockets[0])
        console.print(f"{_name(db)} is being loaded. The page is at {address}", markup=False, soft_wrap=True)
        stack.enter_context(_announced(db, address, settings.key))
        run_server(open_, settings, sockets, ready)
    return address


def _announced(db: IndexInput, address: str, key: str | None) -> AbstractContextManager[None]:
    """Let `mcip search` find the server while it runs, where it needs no token."""
    from mcip.retrieval.location import table_location

    if key is None:
        return nullcontext()
    return announced(Note(address, os.getpid(), table_location(_name(db)), key))


@dataclass(frozen=True)
class _Opener:
    """Opens an index, and opens it anew when it is called again."""

    uri: str
    model: str | None
    device: str
    backend: Backend

    def __call__(self) -> Index:
        from mcip.retrieval.index import open_index

        return open_index(self.uri, self.model, self.device, backend=self.backend)


def _opener(
    db: IndexInput, model: str | None, device: str, backend: Backend = "auto", processes: int = 1
) -> Callable[[], Index]:
    """What opens the index; the first time, in this process, one that is open already is taken as it is.

    Raises:
        ArtefactError: There is no index.
        ConfigError: A model is given for an index that is open already.
    """
    from mcip.retrieval.index import Index
    from mcip.retrieval.table import open_table

    if not isinstance(db, Index):
        uri = os.fspath(db)
        _ = open_table(uri)
        return _Opener(uri, model, device, backend)
    if model is not None:
        raise ConfigError(f"{db.uri} is open already: give its model to open_index.")
    again, given = _Opener(db.uri, None, device, backend), [db]
    return again if processes > 1 else lambda: given.pop() if given else again()


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
