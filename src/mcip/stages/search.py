"""Search an index from the command line: by pictures, by texts, by both."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.table import Table

from mcip.retrieval.contact_sheet import contact_sheet
from mcip.retrieval.index import Index, open_index
from mcip.retrieval.query import is_image
from mcip.retrieval.results import Results

Output: TypeAlias = Literal["table", "json", "paths", "sheet"]


def search(
    db: str,
    query: list[str] | None = None,
    *,
    image: list[str] | None = None,
    text: list[str] | None = None,
    negative: list[str] | None = None,
    weights: list[float] | None = None,
    where: str | None = None,
    k: int = 10,
    offset: int = 0,
    output: Output = "table",
    out: Path = Path("sheet.png"),
    exact: bool = False,
    model: str | None = None,
    device: str = "auto",
) -> str | Path:
    """Find pictures of an index by pictures, by texts, or by both.

    Args:
        db: What `mcip index` made.
        query: Texts and pictures to look for; what names an image file, or is "id:" and an id of the index, is a
            picture.
        image: More pictures to look for.
        text: More texts to look for.
        negative: Texts and pictures to get away from.
        weights: One for each picture to look for, then one for each text, in the order given.
        where: An SQL condition over the index's columns, such as "year > 2015".
        k: Pictures to find.
        offset: Leave out this many of the best ones.
        output: A table, JSON, one path a line, or a contact sheet as a picture.
        out: The contact sheet's file.
        exact: Compare with every picture, whatever the index's size.
        model: The index's model, if it is not where the index says.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Returns:
        The table, JSON or paths as a text; the file of a contact sheet.

    Raises:
        ArtefactError: There is no index.
        ConfigError: There is nothing to look for, or a parameter is out of range.
        ModelError: The model is not the index's.
        UnreadableImage: A picture cannot be read.
    """
    index = open_index(db, model, device)
    asked = query or []
    pictures = [*(one for one in asked if is_image(one)), *(image or [])]
    texts = [*(one for one in asked if not is_image(one)), *(text or [])]
    found = index.search(pictures, texts, negative, weights, where, k, offset, exact=exact)
    if output == "sheet":
        return contact_sheet(index, found, Path(out))
    if output == "json":
        return json.dumps(found.as_dict(), ensure_ascii=False, indent=2)
    return "\n".join(hit.path for hit in found) if output == "paths" else _as_table(found, index)


def _as_table(results: Results, index: Index) -> str:
    names = [name for name in index.engine.table.metadata if any(hit.metadata[name] is not None for hit in results)]
    table = Table("score")
    table.add_column("id", overflow="fold")
    table.add_column("pixels", no_wrap=True)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=40)
    for hit in results:
        facts = [_brief(hit.metadata[name]) for name in names]
        table.add_row(f"{hit.score:.3f}", hit.id, f"{hit.width} x {hit.height}", *facts)
    file = io.StringIO()
    Console(file=file, width=Console().width).print(table)
    return file.getvalue().rstrip("\n")


def _brief(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)
