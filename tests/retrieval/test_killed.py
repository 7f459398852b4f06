"""`mcip index` killed with SIGKILL at every kind of moment, and started again, ends with the same index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip.retrieval.index import Index
from tests.tiny import run, run_killed_over_and_over


def content(db: Path) -> tuple[list[dict[str, Any]], str, bytes]:
    """The rows by their ids, how they are searched, and the results of an exact search for each image.

    A graph, if there is one, has to reach every image.
    """
    index = Index(db, device="cpu")
    engine, table = index.engine, index.engine.table
    rows = table.read(table.schema.names).sort_by("id").drop_columns(["_rowid"]).to_pylist()
    queries = np.array([row["vector"] for row in rows], np.float32)
    if engine.graph is not None:
        reached = engine.graph.search(queries[0], len(engine.graph), 256)
        assert set(reached) >= set(range(len(engine.row_ids)) if engine.alive is None else engine.alive.slots)
    results = index.search_vectors(queries, "image", 5, exact=True)
    found = [[(hit.id, round(hit.score, 4)) for hit in hits] for hits in results]
    return rows, engine.state.method, repr(found).encode()


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_killed_and_started_again(ann: str, own_album: Path, base: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "data": str(own_album), "model": str(base), "ann": ann, "shard_rows": 10, "batch_size": 5, "device": "cpu",
    }  # fmt: skip
    undisturbed, killed = tmp_path / "undisturbed.lance", tmp_path / "killed.lance"
    for kills, stride in ((0, 0), (4, 5)):
        if kills:
            names = sorted(path for path in own_album.rglob("*.jpg"))
            names[0].unlink()
            names[1].rename(own_album / "moved.jpg")
            names[2].write_bytes(names[2].read_bytes() + b"\0")
        assert run("index", {**arguments, "db": str(undisturbed)}) == 0
        assert run_killed_over_and_over("index", {**arguments, "db": str(killed)}, stride or 7) >= max(2, kills // 2)
        assert content(killed) == content(undisturbed)
    assert len(content(killed)[0]) == 35
