"""Results of the page in a real browser go on while they are scrolled."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser import CHROMIUM, MISSING
from tests.server.page import ids, search

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
expect.set_options(timeout=20_000)


def by_pages_of(k: int, page: Page) -> list[str]:
    """Give the page shorter answers, so that it needs several; returns the offsets it asks for, as they come."""
    offsets: list[str] = []

    def shorter(route: Route) -> None:
        offsets.append(re.findall(r"offset=(\d+)", route.request.url)[0])
        route.continue_(url=route.request.url.replace("k=48", f"k={k}"))

    page.route("**/search?*", shorter)
    return offsets


def test_endless_results(page: Page) -> None:
    page.set_viewport_size({"width": 420, "height": 500})
    offsets = by_pages_of(7, page)
    search(page, "a star")
    deadline = time.monotonic() + 60
    while page.locator("#results li[data-id]").count() < 32 and time.monotonic() < deadline:
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(20)
    expect(page.locator("#status")).to_have_text("32 images, that is all.")
    assert offsets == ["0", "7", "14", "21", "28"]
    assert len(set(ids(page))) == 32


def test_results_continue_for_who_scrolls_before_they_are_drawn(page: Page) -> None:
    page.set_viewport_size({"width": 660, "height": 150})
    page.evaluate(
        """new MutationObserver(() => scrollTo(0, document.body.scrollHeight))
            .observe(document.getElementById("results"), { childList: true })"""
    )
    offsets = by_pages_of(12, page)
    search(page, "a star")
    expect(page.locator("#status")).to_have_text("32 images, that is all.")
    assert offsets == ["0", "12", "24"]
