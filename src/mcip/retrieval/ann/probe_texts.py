"""Sample texts, to measure text queries with."""

from __future__ import annotations

import numpy as np

from mcip.retrieval.ann.calibrate import QUERIES
from mcip.retrieval.table import IndexTable


def sample_captions(table: IndexTable, count: int = QUERIES) -> list[str]:
    """Captions of the table, spread over its rows; none where it has none."""
    name = next((name for name in ("captions", "caption") if name in table.metadata), None)
    if name is None:
        return []
    row_ids = np.sort(table.read([])["_rowid"].to_numpy().astype(np.int64))
    some = row_ids[np.linspace(0, len(row_ids) - 1, min(len(row_ids), 4 * count)).astype(np.int64)]
    found: dict[str, None] = {}
    for value in table.take(np.unique(some), [name])[name].to_pylist():
        first = value if isinstance(value, str) else next(iter(value or []), None)
        if first:
            found[str(first)] = None
    captions = list(found)
    return captions[:: max(1, len(captions) // count)][:count]
