"""The report in a real browser: images load, it fits a phone, dark mode is dark, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from mcip import models
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.stages.report import report
from mcip.toyshop.tables import Slice, write_slice
from tests.browser import CHROMIUM, DESKTOP, MISSING, PHONE, chromium
from tests.tiny import CONFIG

# Elements that stick out of the page on the right, but for what scrolls in its own box.
STICKING_OUT = """() => [...document.querySelectorAll("body *")]
    .filter(one => !one.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.outerHTML.slice(0, 120))"""
IMAGES = """() => Promise.all([...document.images].map(one => one.decode().then(
    () => [one.naturalWidth, one.getBoundingClientRect().width], () => [0, 0])))"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it: four groups of tasks, grids by image and by text, the paper's rows."""
    folder = tmp_path_factory.mktemp("browser")
    data = str(write_slice(Slice("test", stream=7, products=10, images=4, captions=1), folder / "t.parquet"))
    named = {
        name: str(models.save(models.from_config(CONFIG, seed), folder / str(seed)))
        for seed, name in enumerate(["base", "a-model-with-a-long-name-that-has-no-place-to-break-it"])
    }
    tasks = [
        Task("products", "i2i", data),
        Task("nearest", "knn", data, index_split="train"),
        Task("shapes", "zero-shot", data, label="shape"),
        Task("words", "t2i", data),
    ]
    results = measure_models(named, tasks, folder / "results", precision="fp32")
    return report([str(path) for path in results], folder / "report", with_paper=True, queries=2).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def opened(browser: Browser, page_file: Path, size: Any, scheme: Any) -> tuple[Page, list[str]]:
    """The page, and its requests and complaints while it was loaded."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    events: list[str] = []
    page.on("request", lambda request: events.append(request.url))
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.goto(page_file.as_uri(), wait_until="load")
    return page, [event for event in events if not event.startswith("data:") and event != page_file.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_images_load_and_the_page_fits(browser: Browser, page_file: Path, size: Any, scheme: str) -> None:
    page, events = opened(browser, page_file, size, scheme)
    assert events == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(STICKING_OUT) == []
    images = page.evaluate(IMAGES)
    assert len(images) > 40
    assert all(natural > 0 and shown > 10 for natural, shown in images)
    page.context.close()


def luminance(page: Page, selector: str, what: str) -> float:
    """From 0, black, to 1, white: the mean of red, green and blue."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{what}")
    return sum(float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]) / (3 * 255)


@pytest.mark.parametrize(("scheme", "page_is_light"), [("light", True), ("dark", False)])
def test_modes_swap_background_text_and_plots(
    browser: Browser, page_file: Path, scheme: str, page_is_light: bool
) -> None:
    page, _ = opened(browser, page_file, DESKTOP, scheme)
    for selector in ("body", ".tile", ".change"):
        assert (luminance(page, selector, "backgroundColor") > 0.8) is page_is_light
        assert (luminance(page, selector, "backgroundColor") < 0.2) is not page_is_light
    assert (luminance(page, "h1", "color") < 0.3) is page_is_light
    used = page.evaluate("document.querySelector('picture img').currentSrc")
    light = page.evaluate("document.querySelector('picture img').src")
    assert (used == light) is page_is_light
    page.context.close()


def test_wide_tables_scroll_in_their_own_box_and_keep_the_names_in_sight(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file, PHONE, "light")
    box = page.locator(".scroll").first
    assert box.evaluate("one => one.scrollWidth > one.clientWidth")
    box.evaluate("one => { one.scrollLeft = 300 }")
    name = page.locator("tbody th").first.bounding_box()
    assert name is not None
    assert 0 <= name["x"] < 40
    assert name["width"] < 0.5 * PHONE["width"]
    page.context.close()
