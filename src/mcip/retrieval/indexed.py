"""What `mcip index` returns: the index, opened, and what an update did to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mcip.retrieval.codec import index_form
from mcip.retrieval.index import Index
from mcip.retrieval.location import is_remote
from mcip.retrieval.sync import Changes

if TYPE_CHECKING:
    from rich.table import Table

_METHODS: Final = {
    "exact": "exact search",
    "graph": "an HNSW graph in memory",
    "disk": "Lance's index on disk",
    "milvus": "Milvus",
}


@dataclass(frozen=True)
class Indexed:
    """An index after an update. It is a path, too: that of its table.

    Attributes:
        index: The index, opened for searching.
        changes: What the update did; None where recall was only measured.
        seconds: How long the update took.

    Example:
        >>> indexed = mcip.index("photos", model="ViT-B-32/openai")  # doctest: +SKIP
        >>> indexed.changes.embedded, len(indexed.index)  # doctest: +SKIP
        (1200, 1200)
    """

    index: Index
    changes: Changes | None = field(default_factory=Changes)
    seconds: float = 0.0

    def __fspath__(self) -> str:
        return self.index.uri

    def __str__(self) -> str:
        return self.index.uri

    @property
    def size(self) -> int:
        """Bytes of the table, where it is on this machine, and of the files derived from it."""
        folders = [self.index.folder, *([] if is_remote(self.index.uri) else [Path(self.index.uri)])]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def facts(self) -> dict[str, str]:
        """How big the index is, how fast, and how accurate, as a person reads it."""
        state = self.index.engine.state
        found = {
            "index": self.index.uri,
            "images": f"{len(self.index):,} x {state.dim} dimensions, {self.size / 1e6:,.1f} MB in all",
            "vectors": self._vectors(),
            "searched by": _METHODS[state.method],
        }
        if not state.settings:
            found["any query"] = f"exact, {_exact_milliseconds(self.index):.2f} ms"
        for kind, setting in state.settings.items():
            how = f"width {setting.width}" if setting.width else "exact search, as no quicker one reaches the recall"
            exact = f", exact search {setting.exact_milliseconds:.2f} ms" if setting.exact_milliseconds else ""
            found[f"{kind} queries"] = (
                f"recall@10 {setting.recall:.3f} at {setting.milliseconds:.2f} ms ({how}; {setting.queries} queries"
                f"{exact})"
            )
        return found

    def _vectors(self) -> str:
        """How vectors are stored, and what an engine holds beside the table."""
        table, state = self.index.engine.table, self.index.engine.state
        form = index_form(table.identity.embedding)
        text = f"{form}, {form.bytes_of(state.dim):,} bytes per image in the table"
        if self.index.engine.vectors is not None:
            text += f", {2 * state.dim:,} in the file that is searched"
        return text

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in self.facts().items():
            table.add_row(Text(name), Text(value, overflow="fold"))
        return table


def _exact_milliseconds(index: Index, queries: int = 11) -> float:
    """Median time of a query that is searched exactly."""
    seconds = []
    for query in index.engine.take(np.arange(len(index.engine.row_ids))[:queries]):
        start = time.perf_counter()
        index.engine.search(query, "image", 10)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))
