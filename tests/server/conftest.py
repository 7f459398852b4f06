"""An index of a table that tests may read but not change, and clients of a server of it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from mcip.retrieval.index import open_index
from mcip.server.app import create_app
from mcip.server.settings import Settings
from mcip.stages.index import index as build_index
from tests.browser import chromium
from tests.server.live import running, wait_until_ready


@pytest.fixture(scope="session")
def served(train: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of `train`, 32 images with captions and labels."""
    db = tmp_path_factory.mktemp("served") / "photos.lance"
    build_index(str(train), str(db), model=str(base), thumbnails=24, device="cpu")
    return db


@pytest.fixture(scope="session")
def client(served: Path) -> Iterator[TestClient]:
    """A client of a server with the usual settings."""
    app = create_app(lambda: open_index(served, device="cpu"), Settings())
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
        yield wait_until_ready(opened)


@pytest.fixture
def connect(served: Path) -> Iterator[Callable[..., TestClient]]:
    """Makes clients of servers with settings of their own."""
    with ExitStack() as stack:

        def make(db: Path = served, **settings: Any) -> TestClient:
            app = create_app(lambda: open_index(db, device="cpu"), Settings(**settings))
            opened = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return wait_until_ready(stack.enter_context(opened))

        yield make


@pytest.fixture
def own_images(tmp_path: Path, base: Path) -> Path:
    """A folder of 4 images, and beside it the index of it, `photos.lance`."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "white")):
        (folder / f"{number}.png").write_bytes(png(colour))
    build_index(str(folder), str(tmp_path / "photos.lance"), model=str(base), device="cpu")
    shutil.copy(folder / "0.png", tmp_path / "secret.png")
    return folder


def png(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """The file of an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def url(served: Path) -> Iterator[str]:
    with running(served) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, open; requests to other hosts and errors of its scripts fail the test."""
    wrong: list[str] = []
    opened = browser.new_page()
    opened.set_default_timeout(20_000)
    opened.on("request", lambda request: None if request.url.startswith((url, "blob:")) else wrong.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(url)
    expect(opened.locator("#results li[data-id]")).to_have_count(32, timeout=20_000)
    yield opened
    opened.close()
    assert wrong == []
