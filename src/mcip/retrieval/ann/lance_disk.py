"""Lance's own index, on disk within the table: for tables whose graph does not fit into memory.

Its vectors are quantized by RaBitQ (Gao et al., SIGMOD 2024), the nearest are compared with the full ones.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.retrieval.ann.exact import Ranked, products, ranking
from mcip.retrieval.table import IndexTable, brief
from mcip.retrieval.vector_column import vectors_of

_NAME: Final = "mcip_vectors"
# Candidates that Lance rescores with their full vectors, for each neighbour requested.
_REFINE: Final = 20
# Neighbours requested beyond k: Lance ranks by the products of vectors in half precision.
_SPARE: Final = 16


def grow_disk_index(table: IndexTable) -> IndexTable:
    """Make the index where there is none, and bring it up to date where many rows are new.

    Returns:
        The table's newest version, with the index.

    Raises:
        ArtefactError: The table cannot be written to.
    """

    def create() -> None:
        table.dataset.create_index("vector", "IVF_RQ", name=_NAME, metric="dot", num_partitions=partitions(len(table)))

    try:
        return table.grow_index(_NAME, create)
    except OSError as error:
        raise ArtefactError(
            f"The index on disk, which {table.uri} needs as its graph does not fit into memory, cannot be written into "
            f"it ({brief(error)}): run `mcip index` where it can, or on a machine with more memory."
        ) from error


def partitions(rows: int) -> int:
    """Partitions of the index: about the square root of the rows."""
    return max(1, round(math.sqrt(rows)))


def widths(rows: int) -> tuple[int, ...]:
    """The numbers of partitions to visit that are tried: powers of two up to all."""
    most = partitions(rows)
    return (*(2**step for step in range(int(math.log2(most)) + 1) if 2**step < most), most)


def disk_search(table: IndexTable, query: NDArray[np.float32], k: int, width: int, where: str | None = None) -> Ranked:
    """Products and `_rowid`s of the k rows nearest to a query, ranked.

    Args:
        table: A table with the index.
        query: Shape (D,).
        k: Rows.
        width: Partitions to visit; 0 is exact search.
        where: Only rows for which this SQL condition holds.
    """
    nearest: dict[str, Any] = {"column": "vector", "q": query, "k": k + _SPARE, "metric": "dot"}
    nearest |= {"use_index": False} if width == 0 else {"nprobes": width, "refine_factor": _REFINE}
    rows = table.dataset.to_table(
        columns=["vector", "_distance"], nearest=nearest, filter=where, prefilter=where is not None, with_row_id=True
    )
    scores = products(vectors_of(rows["vector"]), query)
    row_ids = rows["_rowid"].to_numpy().astype(np.int64)
    order = ranking(scores, row_ids)[:k]
    return scores[order], row_ids[order]
