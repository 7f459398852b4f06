"""Near-duplicates as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.data.thumbnails import thumbnail
from mcip.reporting.templating import render
from mcip.reporting.thumbnails import jpeg_uri
from mcip.retrieval.index import Index

_SIZE = 160
_PER_GROUP = 24


def duplicates_page(index: Index, groups: Sequence[dict[str, Any]], total: int, threshold: float) -> str:
    """Write the page.

    Args:
        index: The index, for the images.
        groups: Those to show, as `duplicates.json` has them.
        total: How many groups there are.
        threshold: The least cosine of an image to the one to keep.

    Returns:
        HTML that loads nothing.
    """
    title = f"{total:,} groups of near-duplicates" if total != 1 else "1 group of near-duplicates"
    summary = f"Images of {index.uri}: exact copies, then images within a cosine of {threshold:g} of the one to keep."
    if len(groups) < total:
        summary += f" The first {len(groups):,} groups are shown; all are in duplicates.json."

    def image(id_: str) -> str | None:
        try:
            return jpeg_uri(index.thumbnail(id_) or thumbnail(decode(index.image_file(id_)[0]), _SIZE))
        except UnreadableImage:
            return None

    return render(
        "mcip.retrieval", "duplicates.html.j2", maker="mcip duplicates", title=title, summary=summary,
        groups=groups, per_group=_PER_GROUP, thumbnail=image,
    )  # fmt: skip
