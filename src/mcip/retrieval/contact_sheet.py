"""Results as one image: a contact sheet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageOps

from mcip.core.errors import ConfigError, UnreadableImage
from mcip.core.files import atomic_write
from mcip.data import decode
from mcip.retrieval.index import Index
from mcip.retrieval.results import Hit, Results

TILE: Final = 192
_GAP: Final = 8
_LINE: Final = 16
_PAPER, _TILE_COLOUR, _INK = (255, 255, 255), (236, 239, 243), (40, 48, 60)


def contact_sheet(index: Index, results: Results, path: Path, columns: int = 5) -> Path:
    """Draw the images of search results, each with its score and id, into one.

    Args:
        index: The index that was searched.
        results: The results.
        path: The file to write; its suffix says which format.
        columns: Images per row.

    Raises:
        ConfigError: The file's suffix is not that of an image format.
    """
    Image.init()
    format_ = Image.EXTENSION.get(path.suffix.lower())
    if format_ not in Image.SAVE:
        raise ConfigError(f"{path} is no name for an image: end it in .png or .jpg.")
    across = max(1, min(columns, len(results)))
    down = max(1, math.ceil(len(results) / across))
    step, line = TILE + _GAP, TILE + _GAP + 2 * _LINE
    sheet = Image.new("RGB", (_GAP + across * step, _GAP + down * line), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, hit in enumerate(results):
        x, y = _GAP + number % across * step, _GAP + number // across * line
        sheet.paste(_tile(index, hit), (x, y))
        for row, text in enumerate((f"{hit.score:.3f}", hit.id)):
            draw.text((x, y + TILE + row * _LINE), _fitting(draw, text), _INK)
    with atomic_write(path) as temporary:
        sheet.save(temporary, format_)
    return path


def _tile(index: Index, hit: Hit) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), _TILE_COLOUR)
    try:
        image = ImageOps.contain(decode(index.image_file(hit.id)[0]), (TILE, TILE))
    except UnreadableImage:
        ImageDraw.Draw(tile).text((8, 8), "cannot be read", _INK)
        return tile
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return tile


def _fitting(draw: ImageDraw.ImageDraw, text: str) -> str:
    """The end of a text, as much as fits under an image."""
    while draw.textlength(text) > TILE:
        text = "\N{HORIZONTAL ELLIPSIS}" + text[2:]
    return text
