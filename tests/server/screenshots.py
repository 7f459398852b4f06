"""Draw the images of the page in docs/images: Toyshop's test products, searched in Chromium.

python tests/server/screenshots.py            about a minute on two cores
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize

from mcip.stages.index import index as build_index
from mcip.toyshop.tables import Slice, write_slice

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tests.browser import DESKTOP, PHONE, chromium  # noqa: E402
from tests.server.live import running  # noqa: E402

IMAGES = ROOT / "docs" / "images"
PART = Slice("test", stream=12, products=300, images=10, captions=1)


def main() -> None:
    """Draw them all."""
    with tempfile.TemporaryDirectory() as folder:
        source, db = write_slice(PART, Path(folder) / "test.parquet"), Path(folder) / "photos.lance"
        build_index(str(source), str(db), model="toyshop", thumbnails=192)
        with running(db) as url, chromium() as browser:
            draw(browser, url)


def draw(browser: Browser, url: str) -> None:
    """Draw each state of the page."""
    page = browser.new_page(viewport=DESKTOP, color_scheme="light")
    shot(page, url + "/?text=a+red+star+on+grass", "search-text")
    page.locator("#results .tile").nth(4).click()
    settle(page)
    page.locator("#text").fill("in the snow")
    page.keyboard.press("Enter")
    settle(page)
    keep(page, "search-mixed")
    page.locator('#results [data-act="view"]').first.click()
    page.wait_for_load_state("networkidle")
    keep(page, "search-view")
    page.close()
    states: list[tuple[str, ViewportSize, Literal["light", "dark"], str]] = [
        ("search-dark", DESKTOP, "dark", "/?text=a+blue+fish&negative=striped&where=shape+!%3D+%27mug%27"),
        ("search-phone", PHONE, "light", "/?text=on+wood&id=test-00003-1"),
        ("search-phone-dark", PHONE, "dark", "/"),
        ("search-empty", DESKTOP, "light", "/?text=a+mug&where=width+%3E+5000"),
    ]
    for name, viewport, scheme, query in states:
        page = browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=1)
        shot(page, url + query, name)
        page.close()


def shot(page: Page, address: str, name: str) -> None:
    """Open an address and draw it."""
    page.goto(address)
    settle(page)
    keep(page, name)


def keep(page: Page, name: str) -> None:
    """Write a screenshot in 256 colours, a third of its size."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(IMAGES / f"{name}.png", optimize=True)


def settle(page: Page) -> None:
    """Wait until the results and their images stand."""
    page.locator("body:not(.asking) #status:not(:empty)").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main()
