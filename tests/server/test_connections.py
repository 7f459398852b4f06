"""Connections that idle, send slowly, never read or are too many are ended, and the server keeps answering others."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from mcip.server.connections import _network
from mcip.server.settings import Settings
from mcip.stages.index import index as build_index
from tests.server.live import running

Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The index of one image whose file has 24 MB."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "images").mkdir()
    Image.linear_gradient("L").resize((4000, 2000)).convert("RGB").save(folder / "images" / "large.bmp")
    build_index(str(folder / "images"), str(folder / "images.lance"), model=str(base), device="cpu")
    return folder / "images.lance"


@contextlib.contextmanager
def serving(db: Path, **settings: Any) -> Iterator[tuple[str, Connect]]:
    """A server's address, and what opens a connection to it."""
    with running(db, Settings(**settings)) as url, contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            opened = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)
            return stack.enter_context(opened)

        yield url, connect


def rest(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1 << 16):
            received += part
    return received


def problem(received: bytes) -> tuple[int, str]:
    """The status and the sentence of the last answer in what was received."""
    head, _, body = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)["detail"]


def is_up(url: str) -> bool:
    with urllib.request.urlopen(url + "/healthz", timeout=30) as response:
        return bool(response.status == 200)


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"])
def test_a_header_that_does_not_arrive_ends_the_connection(served: Path, sent: bytes) -> None:
    with serving(served, seconds=0.3) as (url, connect):
        clients = [connect() for _ in range(5)]
        for client in clients:
            client.sendall(sent)
        assert {problem(rest(client)) for client in clients} == {(408, "The request did not arrive within 0.3 s.")}
        assert is_up(url)


def test_a_header_and_a_body_that_trickle_in_end_the_connection(served: Path) -> None:
    starts = (b"GET /healthz HTTP/1.1\r\nx: ", b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n",
              b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal")  # fmt: skip
    with serving(served, seconds=0.5) as (url, connect):
        clients = [connect() for _ in starts]
        for client, start in zip(clients, starts, strict=True):
            client.sendall(start)
        with contextlib.suppress(ConnectionError):
            while True:
                time.sleep(0.05)
                for client in clients:
                    client.sendall(b"a")
        # One of them is closed; the others are as well.
        received = [rest(client) for client in clients]
        assert [part.count(b'"ready"') for part in received] == [0, 1, 1]
        assert is_up(url)


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        (b"hello\r\n\r\n", 400, "not an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "not an HTTP request"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000, 431, "at most 65,536 bytes"),
    ],
)
def test_what_is_not_http_is_refused_in_the_form_of_the_api(
    served: Path, sent: bytes, status: int, sentence: str
) -> None:
    with serving(served) as (url, connect):
        client = connect()
        client.sendall(sent)
        actual, detail = problem(rest(client))
        assert actual == status
        assert sentence in detail
        assert is_up(url)


def test_a_body_that_breaks_off_its_chunks_is_refused(served: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with serving(served) as (url, connect):
        client = connect()
        client.sendall(head + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n")
        assert problem(rest(client))[0] == 400
        assert is_up(url)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
def test_connections_are_bounded(served: Path, limit: str) -> None:
    with serving(served, **{limit: 4}) as (url, connect):
        clients = [connect() for _ in range(4)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" in client.recv(4096)
        refused = rest(connect())
        status, detail = problem(refused)
        assert status == 503
        assert "Too many connections" in detail
        assert b"retry-after: 1" in refused.lower()
        for client in clients:
            client.close()
        deadline = time.monotonic() + 30
        while b"200 OK" not in _ask(connect()):
            assert time.monotonic() < deadline, "closed connections are counted still"
        assert is_up(url)


def _ask(client: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    return rest(client)


def test_clients_that_never_read_cost_little_memory_and_are_cut_off(large: Path) -> None:
    ask = b"GET /image/large.bmp HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(large, seconds=4) as (url, connect):
        clients = [connect() for _ in range(8)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for client in clients:
            client.sendall(ask)
        # While they are being cut off, a client that reads gets everything.
        with urllib.request.urlopen(url + "/image/large.bmp", timeout=60) as response:
            whole = response.read()
        assert len(whole) == 4000 * 2000 * 3 + 54
        for client in clients:
            with contextlib.suppress(ConnectionError):
                while True:
                    client.sendall(b"x")
                    time.sleep(0.05)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        # In kilobytes: all of them would have taken 192 MB.
        assert grown < 120_000
        assert all(len(rest(client)) < len(whole) for client in clients)


def test_slow_clients_do_not_keep_others_from_being_answered(large: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    with serving(large, max_waiting=2) as (url, connect):
        for _ in range(4):
            reader = connect()
            reader.sendall(b"GET /image/large.bmp HTTP/1.1\r\nhost: x\r\n\r\n")
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
            connect().sendall(head + b"content-length: 1000000\r\n\r\n--x\r\n")
        for _ in range(5):
            with urllib.request.urlopen(url + "/search?text=a", timeout=30) as response:
                assert len(json.load(response)["hits"]) == 1


def test_uploads_are_bounded_together(served: Path) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    start = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    with serving(served, max_held=250_000) as (url, connect):
        clients = [connect() for _ in range(3)]
        for client in clients:
            client.sendall(head + b"content-length: 1000000\r\n\r\n" + start + bytes(100_000))
        answered, _, _ = select.select(clients, [], [], 30)
        assert len(answered) == 1
        assert b" 503 " in answered[0].recv(4096)
        for client in clients:
            client.close()
        assert is_up(url)
        deadline = time.monotonic() + 30
        while _uploaded(connect()) != 415:
            assert time.monotonic() < deadline, "what was uploaded is counted still"


def _uploaded(client: socket.socket) -> int:
    body = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(200_000)
    body += b"\r\n--x--\r\n"
    head = "POST /search HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    client.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
    return int(rest(client).split()[1])


def test_addresses_of_one_network_count_together() -> None:
    assert _network("2001:db8::1") == _network("2001:db8::ffff:1") != _network("2001:db8:0:1::1")
    assert _network("10.0.0.1") == _network("::ffff:10.0.0.1") != _network("10.0.0.2")
    assert _network("unix") == "unix"
