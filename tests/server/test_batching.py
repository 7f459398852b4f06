"""Queries that come at the same time share forward passes, and get what each would get alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from mcip.data import read_table
from mcip.retrieval.encoder import Encoder
from mcip.retrieval.index import open_index
from mcip.server.app import create_app
from mcip.server.batching import Batcher
from mcip.server.settings import Settings

Connect = Callable[..., TestClient]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Each forward pass: its kind, its size and its thread."""
    encoded: list[tuple[str, int, str]] = []
    for kind in ("texts", "prepared"):
        real = getattr(Encoder, kind)

        def spy(self: Encoder, batch: list[object], kind: str = kind, real: Callable[..., object] = real) -> object:
            encoded.append((kind, len(batch), threading.current_thread().name))
            return real(self, batch)

        monkeypatch.setattr(Encoder, kind, spy)
    return encoded


async def together(db: Path, settings: Settings, requests: list[dict[str, Any]]) -> list[httpx2.Response]:
    """Send requests to a server of its own at the same time."""
    ready = asyncio.Event()
    app = create_app(lambda: open_index(db, device="cpu"), settings, lambda _: ready.set())
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        await asyncio.wait_for(ready.wait(), 60)
        return list(await asyncio.gather(*(client.request(**request) for request in requests)))


def asking(**parameters: str) -> dict[str, Any]:
    """A query, as `together` takes it."""
    return {"method": "GET", "url": "/search", "params": parameters}


def test_concurrent_queries_share_forward_passes(
    served: Path, train: Path, passes: list[tuple[str, int, str]], client: TestClient
) -> None:
    texts = [asking(text=f"a fish number {n}") for n in range(24)]
    files = [read_table(str(train)).image_source(row) for row in range(8)]
    images = [{"method": "POST", "url": "/search", "files": {"image": ("x.jpg", file)}} for file in files]
    passes.clear()
    answers = asyncio.run(together(served, Settings(window=0.1), [*texts, *images]))
    assert [answer.status_code for answer in answers] == [200] * 32
    # The model is warmed up where it is loaded, and used in one other thread.
    served_by = {thread for _, _, thread in passes if thread != "index_0"}
    counted = {
        kind: [size for one, size, thread in passes if one == kind and thread != "index_0"]
        for kind in ("texts", "prepared")
    }
    assert sum(counted["texts"]) == 24
    assert sum(counted["prepared"]) == 8
    assert len(counted["texts"]) <= 3
    assert len(counted["prepared"]) <= 4
    assert served_by == {"model_0"}
    # Alone, each gets the same images, with the scores equal but for rounding.
    for request, answer in zip([*texts, *images], answers, strict=True):
        alone = client.request(**request).json()["hits"]
        both = [{hit["id"]: hit["score"] for hit in hits} for hits in (answer.json()["hits"], alone)]
        assert both[0].keys() == both[1].keys()
        np.testing.assert_allclose([both[0][id] for id in both[1]], list(both[1].values()), atol=1e-5)


def test_texts_are_embedded_once(connect: Connect, passes: list[tuple[str, int, str]]) -> None:
    client = connect(cached_texts=2)
    passes.clear()
    for text in ("a", "b", "a", "b", "a"):
        assert client.get("/search", params={"text": text}).is_success
    assert len(passes) == 2
    for text in ("c", "a", "b"):
        client.get("/search", params={"text": text})
    # "c" took the place of "b", which was used longer ago than "a".
    assert len(passes) == 4
    assert 'mcip_text_cache_total{result="hit"} 4.0' in client.get("/metrics").text


def test_an_error_of_the_model_is_not_remembered(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect()
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "texts", lambda *_: 1 / 0)
        assert client.get("/search", params={"text": "a fish"}).status_code == 500
    assert client.get("/search", params={"text": "a fish"}).status_code == 200


def test_while_the_function_runs_items_gather() -> None:
    batches: list[list[int]] = []
    go_on = threading.Event()

    def double(items: list[int]) -> list[int]:
        batches.append(items)
        assert go_on.wait(10)
        return [2 * item for item in items]

    async def ask() -> list[int]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(double, executor, batch_size=4, window=0)
            first = asyncio.create_task(batcher(0))
            while not batches:
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(batcher(item)) for item in range(1, 8)]
            await asyncio.sleep(0)
            others[2].cancel()
            go_on.set()
            done = await asyncio.gather(first, *others, return_exceptions=True)
            assert isinstance(done.pop(3), asyncio.CancelledError)
            assert await batcher(9) == 18
            return [int(value) for value in done if not isinstance(value, BaseException)]

    assert asyncio.run(ask()) == [0, 2, 4, 8, 10, 12, 14]
    assert batches == [[0], [1, 2, 4, 5], [6, 7], [9]]


def test_an_error_goes_to_everybody_in_the_batch() -> None:
    def fail(items: list[int]) -> list[int]:
        raise ValueError(len(items))

    async def ask() -> list[object]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(fail, executor, batch_size=4, window=0.01)
            return list(await asyncio.gather(*(batcher(item) for item in range(3)), return_exceptions=True))

    assert [repr(error) for error in asyncio.run(ask())] == ["ValueError(3)"] * 3
