"""Messages to clients: one sentence, the same as in Python for mistakes of the client, and never a place."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import lance
import pytest
from fastapi.testclient import TestClient

from mcip.core.errors import ConfigError, UnreadableImage
from mcip.retrieval.encoder import Encoder
from mcip.retrieval.index import Index, open_index
from mcip.server.metrics import Metrics
from mcip.server.query_encoder import QueryEncoder, Vector
from mcip.server.service import PROBLEM, Query, Service
from mcip.server.settings import Settings
from mcip.stages.index import index as build_index
from tests.server.answers import problem
from tests.server.conftest import png

Connect = Callable[..., TestClient]
ATTACKS = [
    "width>0 and /*'*/ ascii(substr(path,1,1)) > 46 and /*'*/ true",
    "length(repeat(chr(97),100000000)) > 1",
    "hash LIKE 'a%'",
    "`hash` IS NOT NULL",
    "\"stamp\" > ''",
    "_rowid < 5",
    "path LIKE '/home/%'",
    "version() = 'x'",
    "width = 64 height = 64",
    "id = 'a') OR (1 = 1",
    "width = 64; drop table x",
    "width = 64 -- height",
    "width = (SELECT max(width) FROM x)",
    "vector IS NULL",
]
WAITING = "a text that takes long"


@pytest.mark.parametrize("where", ATTACKS)
def test_a_filter_reaches_nothing_that_it_should_not(client: TestClient, where: str, train: Path) -> None:
    for query in ({"where": where}, {"where": where, "text": "a"}):
        assert "The filter is wrong at character" in problem(client.get("/search", params=query), 400)
    assert "The filter is wrong" in problem(client.post("/search", data={"where": where, "text": "a"}), 400)
    assert "The filter is wrong" in problem(client.get("/similar/train-00000-0", params={"where": where}), 400)


def test_a_wrong_filter_is_explained_alike_in_python_and_by_the_api(client: TestClient, served: Path) -> None:
    index = Index(served, device="cpu")
    for where in ("width = 96 height = 5", "shap = 'mug'", "width = '5'", "id = 'open"):
        with pytest.raises(ConfigError) as caught:
            index.search(text="a", where=where)
        message = problem(client.get("/search", params={"text": "a", "where": where}), 400)
        # The command knows one column more.
        assert message.replace(" there are id, ", " there are id, path, ") == str(caught.value)


def test_what_cannot_be_read_is_no_fault_of_the_filter(
    own_images: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    db = own_images.parent / "photos.lance"
    client = connect(db, refresh_seconds=0.02)

    def fail(*_: object, **__: object) -> None:
        raise OSError(f"{db} is gone")

    monkeypatch.setattr(lance.LanceDataset, "to_table", fail)
    for path in ("/search?where=width+=+1", "/image/0.png", "/thumbnail/0.png"):
        gone = client.get(path)
        assert problem(gone, 503) == "The index cannot be read at the moment: the server's log says why."
        assert gone.headers["retry-after"] == "1"
    assert str(db) in caplog.text


def test_an_index_that_is_gone_is_served_on_and_its_place_is_kept(own_images: Path, connect: Connect) -> None:
    db = own_images.parent / "photos.lance"
    client = connect(db, refresh_seconds=0.02)
    shutil.rmtree(db)
    deadline = time.monotonic() + 30
    while (health := client.get("/healthz").json())["problem"] is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert health == {"status": "ready", "problem": PROBLEM}
    assert len(client.get("/search", params={"text": "a"}).json()["hits"]) == 4


@pytest.mark.parametrize("error", [MemoryError(), UnreadableImage("1 x 10000 pixels: too thin")])
def test_uploads_that_cannot_be_used_are_refused_and_the_server_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "prepare", fail)
        message = problem(client.post("/search", files={"image": ("a.png", png("red"))}), 415)
    assert ("too thin" if str(error) else "not enough memory") in message
    assert client.post("/search", files={"image": ("a.png", png("red"))}).is_success


def test_a_form_that_is_cut_off_anywhere_is_refused(client: TestClient) -> None:
    head = b'--x\r\ncontent-disposition: form-data; name="text"\r\n\r\na mug\r\n'
    whole = head + b'--x\r\ncontent-disposition: form-data; name="k"\r\n\r\n3\r\n--x--\r\n'
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert len(client.post("/search", content=whole, headers=form).json()["hits"]) == 3
    for end in range(len(whole) - 2):
        problem(client.post("/search", content=whole[:end], headers=form), 400)
    unnamed = whole.replace(b'; name="k"', b"")
    for body in (b"--y--", b"nothing", b"--x\r\n\r\n--x--", whole.replace(b"\r\n", b"\n"), unnamed):
        answer = client.post("/search", content=body, headers=form)
        assert answer.status_code == 400, body
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=y"):
        assert client.post("/search", content=whole, headers={"content-type": kind}).status_code == 400


def test_an_answer_is_of_one_version_though_a_newer_one_is_opened_meanwhile(
    own_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = own_images.parent / "photos.lance"
    service = Service(lambda: open_index(db, device="cpu"), Settings(refresh_seconds=0.01), Metrics())
    real = QueryEncoder.text

    async def slow(self: QueryEncoder, text: str) -> Vector:
        """Embeds a text while another version of the index, with one image more, is made and opened."""
        if text == WAITING:
            (own_images / "new.png").write_bytes(png("cyan"))
            await asyncio.to_thread(build_index, str(own_images), str(db), device="cpu")
            while len(service.current.index) != 5:
                await asyncio.sleep(0.01)
        return await real(self, text)

    monkeypatch.setattr(QueryEncoder, "text", slow)

    async def ask() -> None:
        task = asyncio.create_task(service.run())
        while not service.ready:
            await asyncio.sleep(0.01)
        version = service.current.version
        results, answered = await service.search(Query(texts=[WAITING], where="width = 40"))
        assert ({hit.id for hit in results}, answered) == ({f"{number}.png" for number in range(4)}, version)
        results, answered = await service.search(Query(texts=["a"]))
        assert {hit.id for hit in results} == {"new.png", *(f"{number}.png" for number in range(4))}
        assert answered > version
        task.cancel()

    asyncio.run(ask())
    service.close()
