"""Filters and groups of the page in a real browser, on a desktop and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from mcip.stages.index import index as build_index
from tests.browser import CHROMIUM, DESKTOP, MISSING, PHONE
from tests.retrieval.test_photo_columns import photograph
from tests.server.conftest import png
from tests.server.live import running
from tests.server.page import settled

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def photographs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of twelve photographs of twelve months, and a burst of four."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        folder = root / "photos" / ("Paris" if number < 8 else "Rome")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(photograph(number, f"2024:{number + 1:02}:15 12:00:00"))
    for number in range(4):
        # The same pixels in files of their own.
        (root / "photos" / f"burst-{number}.png").write_bytes(png("red") + bytes([number]))
    build_index(str(root / "photos"), str(root / "t.lance"), model=str(base), device="cpu")
    with running(root / "t.lance") as address:
        yield address


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_days_values_and_groups_to_click_on(browser: Browser, photographs: str, viewport: ViewportSize) -> None:
    page = browser.new_page(viewport=viewport)
    page.goto(photographs)
    expect(page.locator("#results li[data-id]")).to_have_count(16, timeout=20_000)
    page.locator("summary").click()
    paris = page.locator("#values button", has_text="Paris")
    paris.click()
    expect(page.locator("#results li[data-id]")).to_have_count(8)
    expect(paris).to_have_attribute("aria-pressed", "true")
    page.locator("#values button", has_text="Rome").click()
    expect(page.locator("#results li[data-id]")).to_have_count(12)
    page.locator("#values button", has_text="ILCE-7M3").click()
    expect(page.locator("#results li[data-id]")).to_have_count(4)
    expect(page.locator("#picked li")).to_have_text(["folder: Paris×", "folder: Rome×", "camera: ILCE-7M3×"])
    page.reload()
    expect(page.locator("#results li[data-id]")).to_have_count(4)
    page.locator("#picked li button").last.click()
    expect(page.locator("#results li[data-id]")).to_have_count(12)
    page.locator("summary").click()
    expect(page.locator("#from")).to_have_attribute("min", "2024-01-15")
    page.locator("#from").fill("2024-03-15")
    page.locator("#from").blur()
    expect(page.locator("#results li[data-id]")).to_have_count(10)
    page.locator("#to").fill("2024-05-15")
    page.locator("#to").blur()
    expect(page.locator("#results li[data-id]")).to_have_count(3)
    expect(page.locator("#picked li").first).to_have_text("taken: 2024-03-15 – 2024-05-15×")
    for _ in range(3):
        page.locator("#picked li button").first.click()
        settled(page)
    expect(page.locator("#results li[data-id]")).to_have_count(16)
    page.locator("#grouped").check()
    group = page.locator(".group:visible")
    expect(group.first).to_have_text(re.compile(r"^\+\d+$"))
    shown = page.locator("#results li[data-id]").count()
    more = int(group.first.inner_text()[1:])
    assert more >= 3
    group.first.click()
    expect(page.locator("#results li[data-id]")).to_have_count(shown + more)
    expect(page.locator("#results li[data-id].member")).to_have_count(more)
    group.first.click()
    expect(page.locator("#results li[data-id]")).to_have_count(shown)
    assert "collapse=0.97" in page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
