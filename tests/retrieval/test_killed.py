"""`mcip index` killed with SIGKILL at every kind of moment, and started again, ends with the same index."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcip.retrieval import table as tables
from mcip.retrieval.index import Index
from tests.tiny import PRELOADED


def _index(arguments: dict[str, Any], kill_at: int | None) -> None:
    """Index, and die just before (odd) or after (even) a change of the table, or before a file lasts or appears."""
    import torch

    from mcip.stages.index import index as build_index

    torch.set_num_threads(1)
    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            moment()
            result = function(*args, **kwargs)
            moment()
            return result

        return call

    for name in ("append", "upsert", "delete", "change_identity"):
        setattr(tables.IndexTable, name, deadly(getattr(tables.IndexTable, name)))
    os.fsync = deadly(os.fsync)
    Path.replace = deadly(Path.replace)  # type: ignore[method-assign]
    build_index(**arguments)


def run(arguments: dict[str, Any], kill_at: int | None = None) -> int:
    """The exit code of an index run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_index, args=(arguments, kill_at))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def run_killed_over_and_over(arguments: dict[str, Any], stride: int) -> int:
    kills = 0
    while run(arguments, 1 + kills * stride) != 0:
        kills += 1
    return kills


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
        assert run({**arguments, "db": str(undisturbed)}) == 0
        assert run_killed_over_and_over({**arguments, "db": str(killed)}, stride or 7) >= max(2, kills // 2)
        assert content(killed) == content(undisturbed)
    assert len(content(killed)[0]) == 35
