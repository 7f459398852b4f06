"""Indexing on a Ray cluster makes the table that one machine makes, whatever dies on the way."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mcip import models
from mcip.core.errors import ConfigError, DataError, ModelError
from mcip.retrieval import cluster as on_cluster
from mcip.retrieval.fragment_journal import note_fragments
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mcip[ray]'")
pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'mcip[ray]'")

NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 200 * 2**20}


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Any]]:
    """A cluster of two nodes, which this process is connected to; a test may kill the second one."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    second = cluster.add_node(**NODE)
    ray.init(cluster.address, log_to_driver=False)
    yield [cluster, second]
    ray.shutdown()
    cluster.shutdown()


def rows_of(db: Path) -> list[dict[str, Any]]:
    table = open_table(str(db))
    return list(table.read(table.schema.names).drop_columns(["_rowid"]).sort_by("id").to_pylist())


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    vectors = [np.array([row.pop("vector") for row in rows], np.float32) for rows in (found, expected)]
    assert found == expected
    np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-3)


def test_one_of_two_nodes_killed(
    nodes: list[Any], own_album: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sorted(own_album.rglob("*.jpg"))[0]
    broken = own_album / "broken.jpg"
    broken.write_bytes(first.read_bytes()[:100])
    arguments: dict[str, Any] = {
        "model": str(base), "device": "cpu", "shard_rows": 6, "batch_size": 3, "thumbnails": 16, "max_unreadable": 0.1,
    }  # fmt: skip
    one, many = tmp_path / "one.lance", tmp_path / "many.lance"
    build_index(str(own_album), str(one), **arguments)
    cluster, second = nodes
    note = note_fragments
    versions: list[int] = []

    def note_and_kill(*values: Any) -> None:
        if not versions:
            cluster.remove_node(second, allow_graceful=False)
        versions.append(open_table(str(many)).version)
        note(*values)

    monkeypatch.setattr(on_cluster, "note_fragments", note_and_kill)
    build_index(str(own_album), str(many), ray="auto", **arguments)
    # Ray notices a node's death after a while.
    until = time.monotonic() + 60
    while len(alive := [node for node in ray.nodes() if node["Alive"]]) > 1 and time.monotonic() < until:
        time.sleep(0.2)
    assert len(alive) == 1
    assert len(versions) >= 6
    assert len(set(versions)) == 1
    assert open_table(str(many)).version == versions[0] + 1
    same(rows_of(many), rows_of(one))
    assert not list((tmp_path / "many.lance.search" / on_cluster.JOURNAL).glob("*"))


class InProcess:
    """Stands in for Ray where nothing is lost with a node: the stages one after the other in this process."""

    def __init__(self) -> None:
        self.data = self
        self.tables: list[pa.Table] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def ActorPoolStrategy(self, **_: int) -> None: ...  # noqa: N802

    def from_arrow(self, tables: list[pa.Table]) -> InProcess:
        self.tables = tables
        return self

    def map_batches(
        self, function: Any, *, batch_size: int, fn_constructor_args: Any = (), fn_kwargs: Any = None, **_: Any
    ) -> InProcess:
        every = pa.concat_tables(self.tables)
        called = function(*fn_constructor_args) if isinstance(function, type) else function
        self.tables = [
            called(every.slice(at, batch_size), **(fn_kwargs or {})) for at in range(0, len(every), batch_size)
        ]
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for table in self.tables:
            yield from table.to_pylist()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cluster, "_connected", lambda address: contextlib.nullcontext(InProcess()))


def test_killed_run_goes_on_behind_its_shards(
    in_process: None, own_album: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "photos.lance"
    arguments: dict[str, Any] = {"model": str(base), "device": "cpu", "shard_rows": 12, "batch_size": 6, "ray": "auto"}
    note = note_fragments
    noted = []

    def note_and_stop(*values: Any) -> None:
        note(*values)
        noted.append(values)
        if len(noted) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(on_cluster, "note_fragments", note_and_stop)
    with pytest.raises(KeyboardInterrupt):
        build_index(str(own_album), str(db), **arguments)
    assert len(open_table(str(db))) == 0
    journal = tmp_path / "photos.lance.search" / on_cluster.JOURNAL
    kept = {path: path.read_bytes() for path in journal.iterdir()}
    assert len(kept) == 2
    build_index(str(own_album), str(db), **arguments)
    assert len(noted) == 3
    assert len(rows_of(db)) == 36
    # Killed between the commit and the removal of the notes, it does not add the rows twice.
    for path, content in kept.items():
        path.write_bytes(content)
    build_index(str(own_album), str(db), **arguments)
    assert len(rows_of(db)) == 36
    assert not list(journal.iterdir())


def test_changed_moved_and_removed_images(in_process: None, own_album: Path, base: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one.lance", tmp_path / "many.lance"
    arguments: dict[str, Any] = {"model": str(base), "device": "cpu", "shard_rows": 7, "batch_size": 3}
    for change in (False, True):
        if change:
            names = sorted(own_album.rglob("*.jpg"))
            names[0].unlink()
            names[1].rename(own_album / "moved.jpg")
            names[2].write_bytes(names[3].read_bytes() + b"\0")
            (own_album / "new.jpg").write_bytes(names[4].read_bytes() + b"\0")
        build_index(str(own_album), str(one), **arguments)
        build_index(str(own_album), str(many), ray="auto", **arguments)
        same(rows_of(many), rows_of(one))


def test_too_many_unreadable_images(in_process: None, own_album: Path, base: Path, tmp_path: Path) -> None:
    for path in sorted(own_album.rglob("*.jpg"))[:3]:
        path.write_bytes(b"no image")
    db = tmp_path / "photos.lance"
    with pytest.raises(DataError, match="3 of the 36 images"):
        build_index(str(own_album), str(db), model=str(base), device="cpu", ray="auto", max_unreadable=0.01)
    assert len(open_table(str(db))) == 0


def test_a_node_with_another_model(
    in_process: None, indexed: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    other = models.save(models.from_config(tiny_config, seed=2), tmp_path / "other")
    with pytest.raises(ModelError, match="other weights"):
        on_cluster._Embedder(str(indexed), str(other), "auto")


def test_no_cluster(own_album: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(address: str, **_: Any) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127\.0\.0\.1:1' \(nobody answers\)"):
        build_index(str(own_album), str(tmp_path / "photos.lance"), model=str(base), device="cpu", ray="127.0.0.1:1")
