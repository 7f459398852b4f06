"""`mcip serve`: who is let in, what is refused before it starts, and how it stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, McipError, ModelError
from mcip.data import read_table
from mcip.retrieval.index import Index
from mcip.server.app import create_app
from mcip.server.guard import COOKIE, cookie_value
from mcip.server.settings import Settings
from mcip.stages.serve import _opener, serve
from tests.server.answers import problem
from tests.server.live import TOKEN
from tests.server.test_batching import asking, together
from tests.tiny import CONFIG

Connect = Callable[..., TestClient]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_without_the_token_nothing_is_reported(connect: Connect, train: Path) -> None:
    client, id = connect(token=TOKEN), read_table(str(train)).ids[0]
    for path in ("/search?text=a", "/about", "/metrics", f"/image/{id}", f"/thumbnail/{id}", f"/similar/{id}", "/no"):
        for headers in ({}, bearer("wrong"), bearer(""), {"authorization": TOKEN}, {"cookie": f"{COOKIE}={TOKEN}"}):
            refused = client.get(path, headers=headers)
            assert "A token is needed" in problem(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
    assert problem(client.post("/search", files={"image": ("a", bytes(100))}), 401)
    assert client.get(f"/image/{id}", headers=bearer(TOKEN)).is_success
    assert client.get("/search?text=a", headers={"authorization": f"bearer {TOKEN}"}).is_success
    for path in ("/", "/page/main.js", "/healthz", "/openapi.json"):
        assert client.get(path).is_success


def test_a_browser_gets_a_cookie_for_the_token(connect: Connect) -> None:
    client = connect(token=TOKEN)
    assert "not the token" in problem(client.post("/session", json={"token": "wrong"}), 401)
    assert "token" in problem(client.post("/session", json={}), 422)
    entered = client.post("/session", json={"token": TOKEN})
    assert entered.status_code == 204
    assert TOKEN not in entered.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(re.split("; ", entered.headers["set-cookie"]))
    assert client.cookies[COOKIE] == cookie_value(TOKEN)
    assert client.get("/about").is_success
    assert connect(token=TOKEN + "x").get("/about", headers={"cookie": f"{COOKIE}={cookie_value(TOKEN)}"}).is_error
    assert connect().post("/session", json={"token": "any"}).status_code == 204


def test_the_description_says_that_a_token_is_needed(connect: Connect) -> None:
    described = connect(token=TOKEN).get("/openapi.json").json()
    assert described["paths"]["/search"]["get"]["security"] == [{"HTTPBearer": []}]
    assert "401" in described["paths"]["/about"]["get"]["responses"]
    assert "401" not in connect().get("/openapi.json").json()["paths"]["/about"]["get"]["responses"]


def test_names_of_other_sites_are_not_answered(connect: Connect) -> None:
    client = connect(hosts=frozenset(("localhost", "127.0.0.1", "[::1]")))
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]", "[::1]:8000", "LOCALHOST"):
        assert client.get("/about", headers={"host": host}).is_success
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""):
        assert "open it as localhost" in problem(client.get("/about", headers={"host": host}), 421)


def test_too_many_requests_are_sent_away(served: Path) -> None:
    requests = [asking(text=f"a {n}") for n in range(6)]
    answers = asyncio.run(together(served, Settings(max_waiting=2, window=0.1), requests))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4
    assert {answer.headers.get("retry-after") for answer in answers if answer.is_error} == {"1"}


def test_requests_that_arrive_too_slowly_are_cut_off(served: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.sleep(5)

    form = {"content-type": "multipart/form-data; boundary=x"}
    request = {"method": "POST", "url": "/search", "content": body(), "headers": form}
    [answer] = asyncio.run(together(served, Settings(seconds=0.2), [request]))
    assert "did not arrive within 0.2 s" in problem(answer, 408)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"host": "0.0.0.0"}, "set a token"),
        ({"host": "example.org"}, "set a token"),
        ({"host": "0.0.0.0", "token": "short"}, "16 or more"),
        ({"token": "white space"}, "without spaces"),
        ({"port": 70_000}, "from 0 to 65535"),
        ({"seconds": 0}, "seconds is 0: it must be above 0"),
        ({"max_k": -1}, "max_k is -1"),
        ({"host": "no.such.host.invalid", "token": TOKEN}, "no address to listen at"),
    ],
)
def test_what_is_refused(served: Path, parameters: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        serve(str(served), **parameters)  # type: ignore[arg-type]


def test_a_port_that_is_taken(served: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="choose another --port"):
        serve(str(served), port=taken.getsockname()[1])


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="There is nothing at this place"):
        serve(str(tmp_path / "none.lance"))


def test_another_model(served: Path, tmp_path: Path) -> None:
    other = models.save(models.from_config(CONFIG, seed=9), tmp_path / "other")
    with pytest.raises(ModelError, match="vectors of different models cannot be compared"):
        serve(str(served), port=0, model=str(other), device="cpu")


def test_an_index_that_is_open_is_served_and_opened_again_when_it_is_made_anew(served: Path) -> None:
    index = Index(served, device="cpu")
    opener = _opener(index, None, "cpu", "torch")
    assert opener() is index
    again = opener()
    assert again is not index
    assert again.uri == index.uri
    with pytest.raises(ConfigError, match="give its model to open_index"):
        _opener(index, "toyshop", "cpu", "torch")


def test_a_missing_package_is_named(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connections", "processes"):
        monkeypatch.delitem(sys.modules, f"mcip.server.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"pip install 'mcip\[serve\]'"):
        serve(str(served), port=0)


def test_a_failure_while_loading_is_reported(served: Path) -> None:
    def fail() -> None:
        raise McipError("no such thing")

    failures: list[BaseException] = []
    with TestClient(create_app(fail, on_failure=failures.append), base_url="http://localhost") as client:  # type: ignore[arg-type]
        while not failures:
            time.sleep(0.01)
        assert client.get("/healthz").status_code == 503
    assert str(failures[0]) == "no such thing"


def test_the_command_serves_until_it_is_stopped(served: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mcip", "serve", str(served), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "MCIP_TOKEN": TOKEN, "COLUMNS": "200"}
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(command, stderr=file, stdout=file, env=environment) as process:
        try:
            while "can be searched now" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            found = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
            assert found
            request = urllib.request.Request(found[0] + "search?text=a", headers=bearer(TOKEN))
            with urllib.request.urlopen(request, timeout=20) as response:
                assert response.status == 200
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(found[0] + "search?text=a", timeout=20)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
