"""One version of an index, opened: its vectors, and what a result shows of its rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.retrieval.ann.engine import Chosen, Engine
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.results import Hit
from mcip.retrieval.table import HIDDEN

# Rows up to which what a result shows is kept in memory rather than read for each query.
_IN_MEMORY: Final = 5_000_000
# Filters whose rows are remembered.
_FILTERS: Final = 32


class Opened:
    """One version of the index, with what a result shows of its rows."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._rows: pa.Table | None = None
        if len(engine) <= _IN_MEMORY:
            rows = engine.table.read(engine.table.shown).sort_by("_rowid").combine_chunks()
            self._position = np.searchsorted(rows["_rowid"].to_numpy().astype(np.int64), engine.row_ids)
            self._rows = rows.drop_columns(["_rowid"])
        self.matching: Callable[[str | None], Chosen | None] = lru_cache(_FILTERS)(self._matching)

    def _matching(self, where: str | None) -> Chosen | None:
        if where is None or not where.strip():
            return None
        table = self.engine.table
        return self.engine.matching(compile_filter(where, table.schema, table.shown))

    def hits(self, slots: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """The rows in these slots, with these scores."""
        if self._rows is None:
            rows = self.engine.table.take(self.engine.row_ids[slots], self.engine.table.shown)
        else:
            rows = self._rows.take(pa.array(self._position[slots]))
        columns = {name: rows[name].to_pylist() for name in rows.column_names if name not in HIDDEN}
        own = [columns.pop(name) for name in ("id", "path", "width", "height")]
        metadata = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [
            Hit(id, score, path, width, height, facts)
            for id, path, width, height, facts, score in zip(
                *own, metadata or [{} for _ in slots], scores.tolist(), strict=True
            )
        ]
