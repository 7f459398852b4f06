"""The API answers what the index answers, and nothing that it should not."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mcip.data import decode, read_table
from mcip.retrieval.index import Index, open_index
from mcip.retrieval.snapshot import Snapshot
from mcip.server.app import create_app
from mcip.server.guard import POLICY
from mcip.server.service import PROBLEM
from mcip.stages.index import index as build_index
from tests.server.answers import expected, found, problem
from tests.server.conftest import png

Connect = Callable[..., TestClient]
RED = ("image", ("red.png", png("red"), "image/png"))


@pytest.fixture(scope="module")
def index(served: Path) -> Index:
    return Index(served, device="cpu")


def test_text_is_searched_as_the_index_does(client: TestClient, index: Index) -> None:
    answer = client.get("/search", params={"text": "a red mug", "k": 7}).json()
    assert found(answer) == expected(index.search(text="a red mug", k=7))
    assert answer["next_offset"] == 7
    assert answer["version"] == index.engine.table.version
    hit = answer["hits"][0]
    row = index.row(hit["id"])
    assert hit["metadata"] == {name: row[name] for name in hit["metadata"]}
    assert "path" not in hit


def test_pages_follow_each_other_to_the_end(client: TestClient, index: Index) -> None:
    offset, hits = 0, []
    while offset is not None:
        answer = client.get("/search", params={"text": "a star", "k": 12, "offset": offset}).json()
        hits += found(answer)
        offset = answer["next_offset"]
    assert hits == expected(index.search(text="a star", k=32))


def test_parts_and_weights(client: TestClient, index: Index, train: Path) -> None:
    ids = read_table(str(train)).ids[:3]
    image = decode(png("red"))
    query: dict[str, Any] = {
        "id": ids[0],
        "text": ["snow", "a fish"],
        "negative": "night",
        "negative_id": ids[1],
        "k": "5",
    }
    answer = client.post("/search", data=query | {"weight": ["0.5", "1", "2", "0.25"]}, files=[RED]).json()
    right = index.search([image, f"id:{ids[0]}"], query["text"], ["night", f"id:{ids[1]}"], [0.5, 1, 2, 0.25], k=5)
    assert found(answer) == expected(right)
    where = {"text": "a fish", "where": "shape = 'fish' OR width < 0", "exact": "true"}
    assert found(client.get("/search", params=where).json()) == expected(
        index.search(text="a fish", where=where["where"], k=24, exact=True)
    )


def test_balance_goes_from_the_image_to_the_text(client: TestClient, index: Index, train: Path) -> None:
    ids = read_table(str(train)).ids
    query: dict[str, Any] = {"id": ids[:2], "text": "a fish on sand", "k": 32}
    for balance in (0.0, 0.3, 1.0):
        answer = client.get("/search", params={**query, "balance": balance}).json()
        weights = [1 - balance, 1 - balance, 2 * balance]
        right = index.search([f"id:{id}" for id in ids[:2]], "a fish on sand", weights=weights, k=32)
        assert found(answer) == expected(right)
    alone = client.get("/search", params={"text": "a fish on sand", "k": 32}).json()
    assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in alone["hits"]]


def test_an_empty_query_lists_the_images_in_order(client: TestClient, train: Path) -> None:
    ids = read_table(str(train)).ids
    answer = client.get("/search", params={"k": 5, "offset": 3}).json()
    assert [hit["id"] for hit in answer["hits"]] == ids[3:8]
    assert {hit["score"] for hit in answer["hits"]} == {None}
    none = client.get("/search", params={"where": "width > 5000"}).json()
    assert (none["hits"], none["next_offset"]) == ([], None)


def test_similar_leaves_out_the_image_itself(client: TestClient, index: Index, train: Path) -> None:
    id = read_table(str(train)).ids[4]
    answer = client.get(f"/similar/{id}", params={"k": 6, "where": "width > 1"}).json()
    assert found(answer) == expected(index.similar(id, 6))
    least = answer["hits"][2]["score"]
    assert client.get(f"/similar/{id}", params={"k": 6, "min_score": least}).json()["hits"] == answer["hits"][:3]
    assert id not in [hit["id"] for hit in answer["hits"]]


def test_images(client: TestClient, index: Index, train: Path) -> None:
    id = read_table(str(train)).ids[0]
    whole = client.get(f"/image/{id}")
    assert (whole.content, whole.headers["content-type"]) == index.image_file(id)
    assert client.get(f"/thumbnail/{id}", params={"side": 64}).headers["content-type"] == "image/jpeg"
    made = client.get(f"/thumbnail/{id}", params={"side": 100}).content
    with Image.open(io.BytesIO(made)) as small:
        assert small.size == decode(whole.content).size == (64, 64)
    assert client.get(f"/thumbnail/{id}", params={"side": 100}).content == made


def test_about_health_and_metrics(client: TestClient, index: Index) -> None:
    about = client.get("/about").json()
    assert about["images"] == len(index) == 32
    assert about["fingerprint"] == index.fingerprint
    assert [column["name"] for column in about["columns"]] == [name for name in index.columns if name != "path"]
    assert client.get("/healthz").json() == {"status": "ready", "problem": None}
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "mcip_images 32.0" in metrics.text
    assert 'mcip_requests_total{method="GET",route="/about",status="200"}' in metrics.text


@pytest.mark.parametrize(
    ("query", "status", "expected"),
    [
        ("k=0", 422, "k: "),
        ("k=201", 400, "200"),
        ("text=a&offset=1990", 400, "offset"),
        ("tetx=a", 422, "tetx: Extra inputs"),
        ("text=%00", 422, "text"),
        ("text=" + "a" * 1001, 422, "text"),
        ("&".join(["text=a"] * 9), 422, "text"),
        ("balance=2", 422, "balance"),
        ("text=a&weight=1&weight=2", 400, "2 weights"),
        ("text=a&weight=0", 400, "above 0"),
        ("text=a&weight=nan", 422, "weight"),
        ("negative=a", 400, "nothing to look for"),
        ("id=nobody", 404, "no image with this id"),
        ("where=shap%3D'mug'", 400, "did you mean 'shape'"),
        ("where=shape%3D", 400, "at character 7: expected a value"),
        ("where=path+LIKE+'/home%25'", 400, "no column 'path'"),
        ("where=length(repeat('a',1000000000))>1", 400, "no function 'repeat'"),
    ],
)
def test_bad_queries(client: TestClient, query: str, status: int, expected: str) -> None:
    assert expected in problem(client.get(f"/search?{query}"), status)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/image/nobody", 404), ("/thumbnail/nobody", 404), ("/similar/nobody", 404), ("/thumbnail/x?side=9999", 422),
     ("/nowhere", 404), ("/page/app.py", 404), ("/page/..%2Fapp.py", 404), ("/image/..%2F..%2Fetc%2Fpasswd", 404),
     ("/image/%2Fetc%2Fpasswd", 404), ("/docs", 404)],
)  # fmt: skip
def test_what_is_not_there(client: TestClient, path: str, status: int) -> None:
    problem(client.get(path), status)


@pytest.mark.parametrize("content", [b"", b"no image", png("red")[:60], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_uploads_that_are_no_images(client: TestClient, content: bytes) -> None:
    response = client.post("/search", files={"image": ("a.png", content, "image/png")})
    assert "cannot be used" in problem(response, 415)


def test_bodies_that_are_no_forms(client: TestClient) -> None:
    assert "Send a form" in problem(client.post("/search", json={"text": "a"}), 415)
    assert "image" in problem(client.post("/search", data={"image": "a.png"}), 422)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    problem(client.post("/search", content=b"--y\r\n\r\n", headers=broken), 400)
    assert problem(client.request("DELETE", "/search"), 405)


def test_uploads_are_bounded(connect: Connect) -> None:
    small = connect(max_upload=4000, max_pixels=2000)
    assert small.post("/search", files=[("image", ("a.png", png("red"))), ("image", ("b.png", png("blue")))]).is_success
    assert "decompression bomb" in problem(small.post("/search", files={"image": ("a.png", png("red", (50, 41)))}), 415)
    assert "at most 4,000 bytes" in problem(small.post("/search", files={"image": ("a.png", bytes(5000))}), 413)
    # Without a length said before, it is counted.
    parts = (bytes(1000) for _ in range(9))
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert "at most 4,000 bytes" in problem(small.post("/search", content=parts, headers=form), 413)
    assert "at most 16,384 bytes" in problem(small.post("/session", content=bytes(20_000)), 413)


def test_time_is_bounded(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = connect(seconds=0.2)
    monkeypatch.setattr(Snapshot, "search_vectors", lambda *_: time.sleep(0.5))
    late = hasty.get("/search", params={"text": "a"})
    assert "took too long" in problem(late, 503)
    assert late.headers["retry-after"] == "1"


def test_an_unexpected_error_is_logged_and_not_shown(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(Snapshot, "search_vectors", fail)
    response = client.get("/search", params={"text": "a"})
    assert problem(response, 500) == "Something went wrong in the server; its log says what."
    assert "a secret of the server" in caplog.text
    assert response.headers["content-security-policy"] == POLICY


def test_every_answer_keeps_other_hosts_out(client: TestClient) -> None:
    for path in ("/", "/page/main.js", "/healthz", "/search", "/nowhere", "/openapi.json"):
        assert client.get(path).headers["content-security-policy"] == POLICY
    for name in ("index.html", "main.js", "query.js", "results.js", "style.css"):
        text = client.get(f"/page/{name}").text
        assert "http://" not in text
        assert "https://" not in text


def test_only_images_as_they_were_indexed_are_served(own_images: Path, connect: Connect) -> None:
    client = connect(own_images.parent / "photos.lance")
    assert client.get("/image/0.png").content == png("red")
    for bad in ("../secret.png", "%2e%2e/secret.png", str(own_images / "0.png"), "0.png%00"):
        assert client.get(f"/image/{bad}").status_code in (404, 422)
    (own_images / "0.png").unlink()
    (own_images / "0.png").symlink_to("/etc/passwd")
    (own_images / "1.png").write_bytes(png("black"))
    (own_images / "2.png").unlink()
    (own_images / "3.png").unlink()
    os.mkfifo(own_images / "3.png")
    for number in range(4):
        for kind in ("image", "thumbnail"):
            assert "is not the one that was indexed" in problem(client.get(f"/{kind}/{number}.png"), 410)


def test_a_newer_version_is_served_without_a_restart(own_images: Path, connect: Connect) -> None:
    db = own_images.parent / "photos.lance"
    client = connect(db, refresh_seconds=0.02)
    before = client.get("/about").json()
    assert before["images"] == 4
    (own_images / "new.png").write_bytes(png("yellow"))
    (own_images / "0.png").unlink()
    (own_images / "1.png").unlink()
    build_index(str(own_images), str(db), device="cpu", max_removed=1)
    deadline = time.monotonic() + 20
    while client.get("/about").json()["images"] != 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    ids = {hit["id"] for hit in client.get("/search", params={"text": "a"}).json()["hits"]}
    assert ids == {"2.png", "3.png", "new.png"}
    assert client.get("/about").json()["version"] > before["version"]
    assert client.get("/image/new.png").content == png("yellow")
    assert client.get("/image/0.png").status_code == 404


def test_a_version_that_cannot_be_opened_leaves_the_old_one(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(refresh_seconds=0.01)

    def fail(self: Index) -> bool:
        raise OSError("/tmp/gone")

    monkeypatch.setattr(Index, "refresh", fail)
    deadline = time.monotonic() + 20
    while client.get("/healthz").json()["problem"] is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.get("/healthz").json() == {"status": "ready", "problem": PROBLEM}
    assert client.get("/search", params={"text": "a"}).is_success
    assert "mcip_refresh_failures_total 0.0" not in client.get("/metrics").text


def test_loading_is_said(served: Path) -> None:
    def slow() -> Index:
        time.sleep(0.3)
        return open_index(served, device="cpu")

    with TestClient(create_app(slow), base_url="http://localhost") as client:
        health, search = client.get("/healthz"), client.get("/search")
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert "being loaded" in problem(search, 503)
    assert search.headers["retry-after"] == "1"
