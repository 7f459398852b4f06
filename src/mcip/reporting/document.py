"""The frame of a self-contained HTML page: it loads nothing, runs no script, and follows light and dark mode."""

from __future__ import annotations

import importlib.metadata
from importlib import resources
from typing import Final

from mcip.reporting.markup import Child, Html, tag

# No address but the data in the file itself may be loaded.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(maker: str, title: str, summary: str, *sections: Child, style: str = "") -> str:
    """A whole page.

    Args:
        maker: What made it: "mcip report".
        title: Its headline.
        summary: A sentence or two below it.
        sections: Its content.
        style: CSS beside that of every page.

    Returns:
        HTML.
    """
    common = resources.files("mcip.reporting").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - {maker}"),
        tag("style", Html(common + style)),
    )
    body = tag(
        "body",
        tag("header", tag("p", maker, class_="eyebrow"), tag("h1", title), tag("p", summary, class_="summary")),
        tag("main", *sections),
        tag("footer", tag("p", f"Made by mcip {importlib.metadata.version('mcip')}.")),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
