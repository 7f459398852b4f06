"""Searching through a server: the same hits as here, found and trusted only where it is the user's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import mcip
from mcip.core.errors import ConfigError, DataError
from mcip.retrieval.location import table_location
from mcip.retrieval.results import Results
from mcip.server import client, local
from mcip.server.client import Client, RemoteQuery, ServerError
from mcip.server.local import Note, announced, find, new_key
from mcip.server.settings import Settings
from tests.server.conftest import png
from tests.server.live import TOKEN, running

KEY = "0" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mcip" / "servers"


@pytest.fixture(scope="module")
def address(served: Path) -> Iterator[str]:
    """A server of `served` with a key."""
    with running(served, Settings(key=KEY)) as url:
        yield url


@pytest.fixture
def note(served: Path, address: str) -> Iterator[Note]:
    """What the server leaves for clients."""
    left = Note(address, os.getpid(), table_location(served), KEY)
    with announced(left):
        yield left


def by_id(served: Path) -> list[str]:
    return [hit.id for hit in mcip.open_index(served, device="cpu").browse(3)]


@pytest.mark.parametrize(
    "query",
    [
        {"query": "a red mug"},
        {"query": "a red mug", "negative": "a mug. blue", "k": 5, "offset": 2, "where": "width > 1"},
        {"query": ["{image}", "{id}", "a red mug"], "weights": [0.5, 2.0, 1.0], "negative": ["{id}", "{image}"]},
        {"query": ["a red mug", "{id}"], "exact": True},
    ],
)
def test_a_server_finds_what_is_found_here(
    query: dict[str, Any], served: Path, note: Note, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "query.png").write_bytes(png("red"))
    names = {"{image}": str(tmp_path / "query.png"), "{id}": f"id:{by_id(served)[0]}"}

    def filled(value: Any) -> Any:
        return [names.get(one, one) for one in value] if isinstance(value, list) else value

    query = {name: filled(value) for name, value in query.items()}
    here, there = mcip.search(served, **query, server="none"), mcip.search(served, **query)
    assert isinstance(here, Results)
    assert isinstance(there, Results)
    assert "Answered by the server" in capsys.readouterr().err.replace("\n", " ")
    for expected, hit in zip(here, there, strict=True):
        assert replace(hit, score=0) == replace(expected, score=0)
        assert hit.score == pytest.approx(expected.score, abs=1e-5)
    named = mcip.search("anything", **query, server=note.address)
    assert [(hit.id, hit.path) for hit in named] == [(hit.id, "") for hit in there]  # type: ignore[union-attr]


def test_no_server_is_asked_for_what_it_cannot_do(served: Path, note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    mcip.search(served, "a red mug", device="cpu")
    mcip.search(served, "a red mug", server="none")
    assert "Answered" not in capsys.readouterr().err
    # More texts than a server takes: it says so, and the index is searched here.
    assert len(mcip.search(served, ["a red mug"] * 9, k=3)) == 3
    assert "searched without the server" in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(ConfigError, match="--device means nothing"):
        mcip.search(served, "a mug", device="cpu", server=note.address)
    with pytest.raises(ConfigError, match="does not tell where its images lie"):
        mcip.search(served, "a mug", output="paths", server=note.address)
    with pytest.raises(ConfigError, match="images as files"):
        mcip.search(served, image="gone.jpg", server=note.address)
    with pytest.raises(DataError, match="no image with this id"):
        mcip.search(served, "id:gone", server=note.address)
    with pytest.raises(ConfigError, match=r"refuses the query: .*no_such_column"):
        mcip.search(served, "a mug", where="no_such_column > 1", server=note.address)


def test_a_server_that_does_not_answer_in_time_is_named(
    served: Path, note: Note, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "_AT_ONCE", 0.1)
    (path,) = cache.iterdir()
    content = path.read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path.write_text(content.replace(note.address, f"http://127.0.0.1:{silent.getsockname()[1]}/"), encoding="utf-8")
        assert len(mcip.search(served, "a red mug", k=3)) == 3
    path.write_text(content, encoding="utf-8")
    assert "does not show in time that it serves this index" in capsys.readouterr().err.replace("\n", " ")


def test_a_note_is_trusted_only_if_it_is_the_users_own(
    note: Note, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert find(note.table) == note
    assert Client.of(note) is not None
    changes: tuple[dict[str, Any], ...] = (
        {"key": new_key()},
        {"table": "/other.lance"},
        {"address": "http://192.0.2.1:80/"},
    )
    for changed in changes:
        assert Client.of(replace(note, **changed)) is None
    path.chmod(0o644)
    assert find(note.table) is None
    path.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setattr(local, "_user", lambda: 12345)
        assert find(note.table) is None
    assert find(note.table + "x") is None
    for content in ("", "[]", "{}", '{"address": 1, "pid": 1, "table": 2, "key": 3}', "x" * 10_000):
        path.write_text(content)
        assert find(note.table) is None
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with announced(replace(note, pid=process.pid)):
        assert find(note.table) is None
        assert not path.exists()


def test_a_note_goes_with_its_server_but_not_that_of_another(note: Note, cache: Path) -> None:
    other = replace(note, address="http://127.0.0.1:1/")
    with announced(replace(note, table="/t")):
        with announced(replace(other, table="/t")):
            assert find("/t") == replace(other, table="/t")
        assert find("/t") is None
    with announced(replace(note, table="/t")):
        newer = announced(replace(other, table="/t"))
        newer.__enter__()
    assert find("/t") == replace(other, table="/t")
    newer.__exit__(None, None, None)
    assert find("/t") is None


def test_where_no_note_can_be_left_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with announced(Note("http://127.0.0.1:1/", os.getpid(), "/t", KEY)):
        assert find("/t") is None


@contextmanager
def answering(status: int, content: bytes, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A server that gives every request the same answer."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


HIT: dict[str, Any] = {"id": "a", "score": 0.5, "width": 1, "height": 1, "metadata": {}}
DAMAGED: list[Any] = [
    3, [3], [{}], [{**HIT, "score": "x"}], [{**HIT, "score": None}], [{**HIT, "score": float("nan")}],
    [{**HIT, "id": 3}], [{**HIT, "id": "a" * 9000}], [{**HIT, "width": -1}], [{**HIT, "width": "1"}],
    [{**HIT, "metadata": 3}], [{**HIT, "path": 3}], [{**HIT, "others": 3}], [{**HIT, "others": [{}]}],
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"no json"), (200, b"[]"), (200, b"{}"), (302, b"{}"), (500, b"{}"), (503, b'{"detail": "busy"}'),
        *((200, json.dumps({"version": 1, "hits": hits}).encode()) for hits in DAMAGED),
        (200, json.dumps({"version": "one", "hits": [HIT]}).encode()),
    ],
)  # fmt: skip
def test_answers_are_checked(status: int, content: bytes) -> None:
    with answering(status, content, {"Location": "http://127.0.0.1:1/"}) as url, pytest.raises(ServerError):
        Client(url).search(RemoteQuery(texts=["a"]))


def test_more_hits_than_requested_are_left_out() -> None:
    with answering(200, json.dumps({"version": 1, "hits": [HIT] * 9}).encode()) as url:
        assert len(Client(url).search(RemoteQuery(texts=["a"], k=2))) == 2


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "http://", "http://a:b", "http://u:p@a", "http://a?b=c"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a server"):
        Client(url)


def test_tokens(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="use https"):
        Client("http://192.0.2.1", TOKEN)
    with running(served, Settings(token=TOKEN)) as url:
        with pytest.raises(ConfigError, match="MCIP_TOKEN"):
            mcip.search("x", "a mug", server=url)
        monkeypatch.setenv("MCIP_TOKEN", TOKEN)
        assert len(mcip.search("x", "a mug", server=url, k=2)) == 2
    with pytest.raises(ServerError, match="does not answer"):
        mcip.search("x", "a mug", server=url)


def test_nothing_heavy_is_imported(served: Path, note: Note) -> None:
    code = (
        "import sys\nfrom mcip.cli.main import main\nmain(['search', sys.argv[1], 'a red mug', '--output', 'json'])\n"
        "print({'torch', 'numpy', 'pyarrow', 'lance', 'PIL', 'onnxruntime'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(served)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set()"
    assert len(json.loads(done.stdout)["hits"]) == 10
