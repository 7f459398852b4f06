"""Single pictures of an index, by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import DataError, UnreadableImage
from mcip.data.images import media_type
from mcip.retrieval.listing import read_image
from mcip.retrieval.prefetch import content_hash
from mcip.retrieval.table import IndexTable, quoted


def row_of(table: IndexTable, id: str, columns: Sequence[str]) -> dict[str, Any]:
    """Some columns of a picture.

    Raises:
        DataError: There is no such id.
    """
    found = table.read(columns, f"id = {quoted(id)}").select(columns)
    if found.num_rows == 0:
        raise DataError(f"{table.uri} holds no picture with the id {id!r}.")
    row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
    return row


def vector_of(table: IndexTable, id: str) -> NDArray[np.float32]:
    """The vector of a picture, float32 (D,) of unit length; see `row_of`."""
    vector: NDArray[np.float32] = np.asarray(row_of(table, id, ["vector"])["vector"], np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def file_of(table: IndexTable, id: str) -> tuple[bytes, str]:
    """The file of a picture and its media type; see `row_of`.

    Raises:
        UnreadableImage: The file is gone, or is not the one that was indexed.
    """
    row = row_of(table, id, ["path", "hash"])
    content = read_image(row["path"])
    if content_hash(content) != row["hash"]:
        raise UnreadableImage(f"{row['path']} has changed since it was indexed: run `mcip index` again.")
    return content, media_type(content)


def thumbnail_of(table: IndexTable, id: str) -> bytes | None:
    """The JPEG thumbnail of a picture; None where the index has none; see `row_of`."""
    column = "thumbnail" if "thumbnail" in table.schema.names else "id"
    row = row_of(table, id, [column])
    return row.get("thumbnail")
