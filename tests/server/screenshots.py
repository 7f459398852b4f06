"""Draw the images of the page in docs/images: Toyshop's test products, searched in Chromium.

python tests/server/screenshots.py                 about two minutes on two cores
python tests/server/screenshots.py --out FOLDER    to look at
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize

from mcip.stages.index import index as build_index
from mcip.toyshop.tables import Slice, draw_product, write_slice

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from tests.browser import DESKTOP, PHONE, chromium  # noqa: E402
from tests.server.live import running  # noqa: E402

IMAGES = ROOT / "docs" / "images"
# Tags of EXIF.
_MODEL, _EXIF, _TAKEN = 0x0110, 0x8769, 0x9003
PART = Slice("test", stream=12, products=120, images=10, captions=1)
ALBUM = Slice("album", stream=13, products=60, images=1, captions=1)


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="where to [docs/images]")
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, db = write_slice(PART, Path(folder) / "test.parquet"), Path(folder) / "photos.lance"
        build_index(str(source), str(db), model="toyshop", thumbnails=192)
        album, photos = write_album(Path(folder) / "photos"), Path(folder) / "album.lance"
        build_index(str(album), str(photos), model="toyshop", thumbnails=192)
        with chromium() as browser:
            with running(db) as url:
                draw(browser, url, out)
            with running(photos) as url:
                draw_album(browser, url, out)


def write_album(folder: Path) -> Path:
    """Products as photographs: files in folders, of several days and cameras, some of them a burst of five."""
    for number in range(60):
        row = draw_product(ALBUM, number)[0]
        place = folder / ("Home", "Market", "Workshop")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[_MODEL] = ("Canon EOS R6", "ILCE-7M3")[number % 2]
        exif.get_ifd(_EXIF)[_TAKEN] = f"2024:{number % 12 + 1:02}:{number % 28 + 1:02} 12:00:00"
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            for shot in range(5 if number % 10 == 0 else 1):
                image.save(place / f"{number:02}-{shot}.jpg", quality=92 - shot, exif=exif)
    return folder


def draw_album(browser: Browser, url: str, out: Path) -> None:
    """Draw the filters and groups, and what goes wrong."""
    states: list[tuple[str, ViewportSize, Literal["light", "dark"]]] = [
        ("search-filters", DESKTOP, "light"), ("search-phone-filters", PHONE, "dark"),
    ]  # fmt: skip
    for name, viewport, scheme in states:
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.goto(url + "/?collapse=0.97&in=taken&from=2024-01-01&to=2024-10-31")
        settle(page)
        page.locator("summary").click()
        page.locator("#values button", has_text="Home").click()
        page.locator("#values button", has_text="Market").click()
        settle(page)
        keep(page, out / name)
        page.goto(url + "/?text=a+yellow+mushroom&collapse=0.97")
        settle(page)
        page.locator(".group:visible").first.click()
        page.locator("#results .line").scroll_into_view_if_needed()
        settle(page)
        keep(page, out / name.replace("filters", "line"))
        page.close()
    page = browser.new_page(viewport=PHONE)
    page.goto(url + "/?text=a+mug&where=camera+lik+%27Canon%25%27")
    page.locator("#problem:visible").wait_for()
    keep(page, out / "search-error")
    page.close()


def draw(browser: Browser, url: str, out: Path) -> None:
    """Draw each state of the page."""
    page = browser.new_page(viewport=DESKTOP, color_scheme="light")
    shot(page, url + "/?text=a+red+star+on+grass", out / "search-text")
    page.locator("#results .tile").nth(4).click()
    settle(page)
    page.locator("#text").fill("in the snow")
    page.keyboard.press("Enter")
    settle(page)
    keep(page, out / "search-mixed")
    page.locator('#results [data-act="view"]').first.click()
    page.wait_for_load_state("networkidle")
    keep(page, out / "search-view")
    page.close()
    states: list[tuple[str, ViewportSize, Literal["light", "dark"], str]] = [
        ("search-dark", DESKTOP, "dark", "/?text=a+blue+fish&negative=striped&where=shape+!%3D+%27mug%27"),
        ("search-phone", PHONE, "light", "/?text=on+wood&id=test-00003-1"),
        ("search-phone-dark", PHONE, "dark", "/"),
        ("search-empty", DESKTOP, "light", "/?text=a+mug&where=width+%3E+5000"),
        ("search-phone-mixed", PHONE, "light", "/?text=on+wood&id=test-00003-1&negative=striped&min_score=1%2F1000"),
    ]
    for name, viewport, scheme, query in states:
        page = browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=1)
        shot(page, url + query, out / name)
        page.close()


def shot(page: Page, address: str, file: Path) -> None:
    """Open an address and draw it."""
    page.goto(address)
    settle(page)
    keep(page, file)


def keep(page: Page, file: Path) -> None:
    """Write a screenshot in 256 colours, a third of its size."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(file.with_suffix(".png"), optimize=True)


def settle(page: Page) -> None:
    """Wait until the results and their images stand."""
    page.locator("body:not(.asking) #status:not(:empty)").wait_for()
    page.wait_for_load_state("networkidle")
    # wait_for_function polls by eval, which the page's content security policy forbids.
    while not page.evaluate(
        "[...document.images].every((one) => one.complete || one.getBoundingClientRect().top > innerHeight)"
    ):
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main()
