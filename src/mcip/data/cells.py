"""What a cell or a JSON value may hold: captions, texts, lists of texts."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from mcip.core.errors import DataError


def caption_cell(cell: str | None, where: str) -> list[str]:
    """The captions in one text cell: a JSON list of texts, or the cell itself as one caption.

    Raises:
        DataError: It is JSON that holds something else.
    """
    if not cell:
        return []
    if not cell.lstrip().startswith(("[", "{")):
        return [cell]
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):  # a caption that begins with a bracket
        return [cell]
    return json_captions(value, where)


def json_captions(value: Any, where: str) -> list[str]:
    """Captions as JSON holds them: a text, or a list of texts; null and blank ones are left out.

    Raises:
        DataError: There is something else among them, such as an object.
    """
    texts = [value] if isinstance(value, str) or value is None else value
    if not isinstance(texts, list) or not all(text is None or isinstance(text, str) for text in texts):
        shown = json.dumps(value, ensure_ascii=False)
        raise DataError(f"{where}: captions must be a text or a list of texts, not {shown[:100]}")
    return [text for text in texts if text is not None and text.strip()]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column type is lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
