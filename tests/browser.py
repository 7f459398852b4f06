"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Final

from playwright.sync_api import Browser, ViewportSize, sync_playwright

CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
MISSING: Final = "there is no chromium: apt-get install chromium"
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 900}
_SWITCHES: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync",
    "--disable-component-update",
)  # fmt: skip


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, while the block runs."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_SWITCHES))
        yield started
        started.close()
