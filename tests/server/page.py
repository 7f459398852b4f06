"""What tests of the page do to it, and what it shows."""

from __future__ import annotations

from playwright.sync_api import Page


def ids(page: Page) -> list[str]:
    return [str(tile.get_attribute("data-id")) for tile in page.locator("#results li[data-id]").all()]


def settled(page: Page) -> None:
    page.locator("body:not(.asking) #status:not(:empty)").wait_for()


def search(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")
    settled(page)
