"""Near-duplicates as one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.thumbnails import thumbnail
from mcip.reporting.document import document
from mcip.reporting.markup import Html, tag
from mcip.retrieval.index import Index

_SIZE = 160
_PER_GROUP = 24
_STYLE = """
.group { margin: 0 0 16px; padding: 16px 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.group h2 { margin: 0 0 12px; font-size: 1rem; }
.group ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px; margin: 0;
  padding: 0; list-style: none; }
.group img, .group .unreadable { width: 100%; aspect-ratio: 1; border-radius: 6px; background: var(--tile);
  object-fit: contain; }
.group li { font-size: .8rem; line-height: 1.35; }
.group li small { display: block; }
"""


def duplicates_page(index: Index, groups: Sequence[dict[str, Any]], found: int, threshold: float) -> str:
    """Draw the page.

    Args:
        index: The index, for the pictures.
        groups: Those to show, as `duplicates.json` has them.
        found: How many groups there are.
        threshold: The least cosine of a pair.

    Returns:
        HTML that loads nothing.
    """
    title = f"{found:,} groups of near-duplicates" if found != 1 else "1 group of near-duplicates"
    summary = f"Pictures of {index.uri} that are joined by pairs with a cosine of at least {threshold:g}."
    if len(groups) < found:
        summary += f" The {len(groups):,} largest groups are shown; all are in duplicates.json."
    sections = [_section(index, group) for group in groups]
    return document("mcip duplicates", title, summary, sections, style=_STYLE)


def _section(index: Index, group: dict[str, Any]) -> Html:
    pictures, cosines = group["pictures"], [pair["cosine"] for pair in group["pairs"]]
    span = f"cosines from {min(cosines):.3f} to {max(cosines):.3f}" if len(cosines) > 1 else f"cosine {cosines[0]:.3f}"
    title = f"{len(pictures)} pictures, {span}"
    shown = [tag("li", _picture(index, one), tag("span", one["id"]), _pixels(one)) for one in pictures[:_PER_GROUP]]
    more = len(pictures) - len(shown)
    note = tag("p", f"{more} more are in duplicates.json.", class_="caption") if more else None
    return tag("section", tag("h2", title), tag("ul", shown), note, class_="group")


def _pixels(picture: dict[str, Any]) -> Html:
    return tag("small", f"{picture['width']} x {picture['height']}")


def _picture(index: Index, picture: dict[str, Any]) -> Html:
    try:
        small = index.thumbnail(picture["id"])
        small = small or thumbnail(decode(index.picture(picture["id"])[0]), _SIZE)
    except UnreadableImage:
        return tag("span", "picture cannot be read", class_="unreadable")
    return tag("img", src="data:image/jpeg;base64," + base64.b64encode(small).decode(), alt=picture["id"])
