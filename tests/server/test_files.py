"""Images of the index over HTTP: by any id, in parts, when they changed, and never what was not indexed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from fastapi.testclient import TestClient

from mcip.retrieval.index import open_index
from mcip.server.metrics import Metrics
from mcip.server.service import NotReady, Query, Service
from mcip.server.settings import Settings
from mcip.stages.index import index as build_index
from tests.server.answers import problem
from tests.server.conftest import png
from tests.server.live import running

Connect = Callable[..., TestClient]
ODD = ["two\nlines.png", "ends in a newline\n.png", "50%.png", "50%25.png", "a?b=c#d&e.png", 'it\'s "x".png',
       "back\\slash.png", "a;b,c.png", "tab\t.png", "sub/dir/0.png", "~+.png", "<b>.png", "ä 文.png"]  # fmt: skip


def test_head_answers_what_get_answers_without_the_body(client: TestClient, own_images: Path, connect: Connect) -> None:
    source = connect(own_images.parent / "photos.lance")
    paths = ("/", "/page/main.js", "/healthz", "/about", "/search?text=a", "/metrics", "/openapi.json",
             "/image/0.png", "/thumbnail/0.png", "/image/nobody", "/session")  # fmt: skip
    for path in paths:
        get, head = source.get(path), source.head(path)
        assert head.status_code == get.status_code
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))
    assert 'method="HEAD",route="/healthz",status="200"' in source.get("/metrics").text


def test_ids_with_any_characters(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "photos"
    contents = {name: png(f"#{16 * number + 10:06x}") for number, name in enumerate(ODD)}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    build_index(str(folder), str(tmp_path / "photos.lance"), model=str(base), device="cpu")
    # The client of FastAPI's tests decodes addresses twice.
    with running(tmp_path / "photos.lance") as url, httpx2.Client(base_url=url) as client:
        assert {hit["id"] for hit in client.get("/search").json()["hits"]} == set(ODD)
        for name, content in contents.items():
            address = quote(name, safe="")
            assert client.get(f"/image/{address}").content == content
            assert client.get(f"/thumbnail/{address}").headers["content-type"] == "image/jpeg"
            similar = client.get(f"/similar/{address}", params={"k": 50}).json()["hits"]
            assert {hit["id"] for hit in similar} == set(ODD) - {name}
            literal = "'" + name.replace("'", "''") + "'"
            for where in (f"id = {literal}", f"id IN ('x', {literal})", f"\"id\" LIKE 'x' OR `id` = {literal}"):
                assert [hit["id"] for hit in client.get("/search", params={"where": where}).json()["hits"]] == [name]
            assert client.get("/search", params={"id": name, "k": 1}).json()["hits"][0]["id"] == name
        for address in ("%E4.png", "%FF%FE", "two", "%0A", "a" * 4000):
            assert "no image with this id" in problem(client.get(f"/image/{address}"), 404)
        problem(client.get("/image/" + "a" * 4001), 422)


def test_parts_of_a_file(own_images: Path, connect: Connect) -> None:
    client, content = connect(own_images.parent / "photos.lance"), png("red")
    whole = client.get("/image/0.png")
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, content, "bytes")
    for part_range, start, end in (("0-9", 0, 10), ("5-", 5, len(content)), ("-7", len(content) - 7, len(content)),
                              ("0-99999", 0, len(content)), ("-99999", 0, len(content))):  # fmt: skip
        part = client.get("/image/0.png", headers={"range": f"bytes={part_range}"})
        assert (part.status_code, part.content) == (206, content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(content)}"
        assert part.headers["content-length"] == str(end - start)
        assert part.headers["content-type"] == "image/png"
    for part_range in (f"{len(content)}-", "9-5", "-0"):
        outside = client.get("/image/0.png", headers={"range": f"bytes={part_range}"})
        assert "outside of the file" in problem(outside, 416)
        assert outside.headers["content-range"] == f"bytes */{len(content)}"
    for part_range in ("bytes=0-1,5-6", "bytes=-", "lines=0-1", "bytes=x-y", "bytes=" + "9" * 5000 + "-"):
        assert client.get("/image/0.png", headers={"range": part_range}).content == content
    other = {"range": "bytes=0-9", "if-range": '"another"'}
    assert client.get("/image/0.png", headers=other).content == content


def test_a_client_asks_whether_what_it_has_is_still_right(own_images: Path, connect: Connect) -> None:
    client = connect(own_images.parent / "photos.lance")
    for path in ("/image/0.png", "/thumbnail/0.png"):
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        again = client.get(path, headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get(path, headers={"if-none-match": '"x"'}).content == first.content
    assert client.get("/image/0.png").headers["etag"] == f'"{hashlib.sha256(png("red")).hexdigest()}"'
    assert client.get("/thumbnail/0.png?side=64").headers["etag"] != client.get("/thumbnail/0.png").headers["etag"]


def test_thumbnails_follow_the_file(own_images: Path, connect: Connect) -> None:
    client = connect(own_images.parent / "photos.lance")
    assert client.get("/thumbnail/0.png").is_success
    (own_images / "0.png").write_bytes(png("black"))
    assert "is not the one that was indexed" in problem(client.get("/thumbnail/0.png"), 410)
    (own_images / "0.png").write_bytes(png("red"))
    assert client.get("/thumbnail/0.png").is_success


def test_a_large_file_that_took_an_images_place_is_not_read(
    own_images: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(own_images.parent / "photos.lance", max_file=1_000_000)
    with (own_images / "0.png").open("wb") as sparse:
        sparse.truncate(1 << 40)

    def fail(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("mcip.server.files.hashlib.file_digest", fail)
    assert "larger than this server sends" in problem(client.get("/image/0.png"), 410)
    assert "larger than this server sends" in problem(client.get("/thumbnail/0.png"), 410)


def test_images_in_memory_are_bounded(served: Path) -> None:
    service = Service(lambda: open_index(served, device="cpu"), Settings(max_held=1), Metrics())

    async def ask() -> None:
        task = asyncio.create_task(service.run())
        while not service.ready:
            await asyncio.sleep(0.01)
        [hit, *_], _ = await service.search(Query())
        file = await service.file(hit.id)
        assert file.held == file.size
        with pytest.raises(NotReady, match="Too many images are being sent"):
            await service.file(hit.id)
        service.release(file)
        service.release(await service.file(hit.id))
        task.cancel()

    asyncio.run(ask())
    service.close()


def test_files_are_closed(own_images: Path, connect: Connect) -> None:
    client = connect(own_images.parent / "photos.lance")
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("the open files of a process are not listed here")

    def images() -> int:
        return sum(os.path.realpath(entry).endswith(".png") for entry in folder.iterdir())

    for headers in ({}, {"range": "bytes=0-3"}, {"range": "bytes=99999-"}, {"if-none-match": '"x"'}):
        client.get("/image/0.png", headers=headers)
        client.get("/thumbnail/0.png?side=99", headers=headers)
        client.head("/image/0.png", headers=headers)
    etag = client.get("/image/0.png").headers["etag"]
    client.get("/image/0.png", headers={"if-none-match": etag})
    (own_images / "1.png").write_bytes(png("black"))
    client.get("/image/1.png")
    assert images() == 0


def test_an_index_that_was_made_anew_is_taken_over(own_images: Path, base: Path, connect: Connect) -> None:
    db = own_images.parent / "photos.lance"
    client = connect(db, refresh_seconds=0.02)
    before = client.get("/about").json()
    old = client.get("/thumbnail/0.png").content
    shutil.rmtree(db)
    for number, colour in enumerate(("white", "cyan", "magenta", "black")):
        (own_images / f"{number}.png").write_bytes(png(colour))
    build_index(str(own_images), str(db), model=str(base), device="cpu")
    deadline = time.monotonic() + 30
    while (answer := client.get("/image/0.png")).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answer.content == png("white")
    assert client.get("/thumbnail/0.png").content != old
    after = client.get("/about").json()
    # The same number, of another index.
    assert (after["version"], after["images"]) == (before["version"], 4)
    assert client.get("/healthz").json()["problem"] is None


def test_an_index_that_was_made_anew_with_another_model_is_taken_over(
    own_images: Path, tiny_folder: Path, connect: Connect
) -> None:
    db = own_images.parent / "photos.lance"
    client = connect(db, refresh_seconds=0.02)
    before = client.get("/about").json()
    assert client.get("/search", params={"text": "a"}).is_success
    shutil.rmtree(db)
    build_index(str(own_images), str(db), model=str(tiny_folder), device="cpu")
    deadline = time.monotonic() + 30
    while (about := client.get("/about").json()) and time.monotonic() < deadline:
        assert client.get("/search", params={"text": "a"}).is_success
        if about["fingerprint"] != before["fingerprint"] and about["images"] == 4:
            break
        time.sleep(0.02)
    assert about["fingerprint"] != before["fingerprint"]
    # The text is embedded again: the embeddings of the other model do not fit.
    assert len(client.get("/search", params={"text": "a"}).json()["hits"]) == 4
    assert client.post("/search", files={"image": ("a.png", png("red"))}).is_success
