"""An index whose vectors Milvus holds: what is found, what is loaded again, and what a dead server does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mcip
from mcip.core.errors import ConfigError, EngineError
from mcip.retrieval.index import Index
from mcip.retrieval.milvus.collection import Collection
from mcip.retrieval.milvus.connection import address
from mcip.retrieval.milvus.load import load
from mcip.retrieval.table import IndexTable
from tests.retrieval.ann.cloud import cloud, full_sort, new_table, probes, rows
from tests.retrieval.milvus_server import Server

pytest.importorskip("pymilvus", reason="the extra mcip[milvus] is not installed")


def in_milvus(place: Path, uri: str, fragments: int = 1) -> IndexTable:
    """A table of 600 vectors in some fragments, whose engine is Milvus; nothing is loaded."""
    table, size = new_table(place), 600 // fragments
    for first in range(0, 600, size):
        table = table.append(rows(cloud(600)[first : first + size], first, "ab"[first // 300]))
    name = f"mcip_{table.identity.created}"
    return table.change_identity(milvus={"uri": uri, "collection": name})


def open_(table: IndexTable) -> Index:
    return Index(table.uri, probe_texts=probes, target=0.99)


def found(index: Index, query: np.ndarray, k: int = 10, where: str | None = None, exact: bool = False) -> list[int]:
    return [int(hit.id) for hit in index.search_vectors(query[None], "image", k, where, exact)[0]]


@pytest.mark.parametrize("fragments", [2])
def test_it_finds_what_a_full_sort_does_and_the_first_results_are_the_same_for_every_k(
    milvus: str, tmp_path: Path, fragments: int
) -> None:
    table = in_milvus(tmp_path / "t.lance", milvus, fragments)
    load(table)
    index = open_(table)
    assert set(index.engine.state.settings) == {"image", "text", "mixed"}
    assert all(setting.recall >= 0.99 for setting in index.engine.state.settings.values())
    right = right_of_b = 0
    for query in (*cloud(4, 5), *probes()[:4]):
        right += len(set(found(index, query)) & set(full_sort(cloud(600), query, 10, list(range(600)))))
        assert found(index, query, exact=True) == full_sort(cloud(600), query, 10, list(range(600)))
        assert found(index, query, 10) == found(index, query, 100)[:10]
        those_of_b = found(index, query, 10, "kind = 'b' and width < 5")
        right_of_b += len(set(those_of_b) & set(full_sort(cloud(600), query, 10, list(range(300, 600)))))
        assert min(those_of_b) >= 300
        assert found(index, query, 500, "kind = 'c'") == []
    assert right >= 72
    # milvus-lite filters what its graph has found, the server searches among the rows that are left.
    assert right_of_b >= (72 if milvus.startswith("http") else 40)
    hits = index.search_vectors(cloud(1, 5), "image", 5)[0]
    assert [hit.score for hit in hits] == pytest.approx(
        [float(cloud(600)[int(h.id)] @ cloud(1, 5)[0]) for h in hits], abs=1e-3
    )
    assert [hit.id for hit in index.browse(3, 0, "kind = 'b'")] == ["00300", "00301", "00302"]


def test_changes_of_the_table_are_told_and_loaded(
    milvus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = in_milvus(tmp_path / "t.lance", milvus, 3)
    load(table)
    table.delete([f"{number:05d}" for number in range(40)])
    moved = cloud(600)[::-1][100:110]
    table = table.latest().upsert(rows(moved, 100, "c")).append(rows(cloud(5, 7), 600, "c"))
    capsys.readouterr()
    index = open_(table)
    assert "holds version" in capsys.readouterr().err
    # What has gone from the table is not found, though Milvus still holds it.
    assert set(found(index, cloud(600)[3], 30)).isdisjoint(range(40))
    load(table)
    index = open_(table)
    assert capsys.readouterr().err.count("holds version") == 0
    assert found(index, cloud(5, 7)[2], 1) == [602]
    assert sorted(found(index, cloud(600)[0], 600)) == list(range(40, 605))
    assert sorted(found(index, moved[0], 100, "kind = 'c'")) == [*range(100, 110), *range(600, 605)]
    assert found(index, moved[4], 1, "kind = 'c'") == [104]


def test_a_load_that_was_cut_off_resumes(milvus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, uploaded = in_milvus(tmp_path / "t.lance", milvus, 4), list[int]()
    upsert = Collection.upsert

    def failing(collection: Collection, some: list[dict[str, Any]]) -> None:
        if len(uploaded) == 2:
            raise EngineError("The network is gone.")
        uploaded.append(len(some))
        upsert(collection, some)

    monkeypatch.setattr(Collection, "upsert", failing)
    with pytest.raises(EngineError, match="network"):
        load(table)
    with pytest.raises(EngineError, match=r"does not hold all .* `mcip index` again"):
        open_(table)

    def counted(collection: Collection, some: list[dict[str, Any]]) -> None:
        uploaded.append(len(some))
        upsert(collection, some)

    monkeypatch.setattr(Collection, "upsert", counted)
    load(table)
    assert uploaded == [150] * 4
    load(table)
    assert uploaded == [150] * 4
    assert sorted(found(open_(table), cloud(600)[0], 600)) == list(range(600))


def test_a_collection_of_something_else_is_left_alone(milvus: str, tmp_path: Path) -> None:
    one, other = (in_milvus(tmp_path / name, milvus) for name in ("one.lance", "other.lance"))
    load(one)
    assert one.identity.milvus is not None
    other = other.change_identity(milvus={"uri": milvus, "collection": one.identity.milvus.collection})
    with pytest.raises(EngineError, match="another index"):
        load(other)
    client = Collection(one, one.identity.milvus).client
    client.create_collection("theirs", dimension=4)
    other = other.change_identity(milvus={"uri": milvus, "collection": "theirs"})
    with pytest.raises(EngineError, match="not made by"):
        load(other)
    assert client.has_collection("theirs")
    client.drop_collection("theirs")


def test_a_server_that_dies_loses_nothing(
    milvus_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcip.retrieval.milvus.collection.SECONDS", 2)
    monkeypatch.setattr("mcip.retrieval.milvus.connection.SECONDS", 2)
    table, uploaded = in_milvus(tmp_path / "t.lance", milvus_server.uri, 4), []
    upsert = Collection.upsert

    def killing(collection: Collection, some: list[dict[str, Any]]) -> None:
        uploaded.append(len(some))
        if len(uploaded) == 3:
            milvus_server.kill()
        upsert(collection, some)

    monkeypatch.setattr(Collection, "upsert", killing)
    with pytest.raises(EngineError, match=r"start it.*resumes"):
        load(table)
    with pytest.raises(EngineError, match="start it"):
        load(table)
    milvus_server.start()
    monkeypatch.setattr("mcip.retrieval.milvus.collection.SECONDS", 30)
    load(table)
    # Of the three that were sent before, what was recorded is not sent again.
    assert 5 <= len(uploaded) < 3 + 4
    index = open_(table)
    before = [found(index, query) for query in cloud(5, 3)]
    milvus_server.kill()
    monkeypatch.setattr("mcip.retrieval.milvus.collection.SECONDS", 2)
    with pytest.raises(EngineError, match="start it"):
        found(index, cloud(1, 3)[0])
    milvus_server.start()
    monkeypatch.setattr("mcip.retrieval.milvus.collection.SECONDS", 30)
    # Opening waits until Milvus has read the collection into memory again.
    index = open_(table)
    assert [found(index, query) for query in cloud(5, 3)] == before


def test_the_command_remembers_the_engine(milvus: str, run_index: Callable[..., Index]) -> None:
    index = run_index(engine="milvus", uri=milvus)
    assert index.engine.state.method == "milvus"
    best = mcip.search(index.uri, "id:" + index.browse(1)[0].id, k=5, server="none")
    assert run_index().engine.state.method == "milvus"
    local = run_index(engine="local")
    assert local.engine.state.method == "exact"
    again = mcip.search(local.uri, "id:" + index.browse(1)[0].id, k=5, server="none")
    assert [hit.id for hit in best] == [hit.id for hit in again]  # type: ignore[union-attr]


def test_addresses_and_passwords(tmp_path: Path) -> None:
    for uri in ("http://root:Milvus@host:19530", "http://host:19530?token=x"):
        with pytest.raises(ConfigError, match="MCIP_MILVUS_TOKEN"):
            address(uri, "images")
    for uri, name in (("host:19530", "images"), ("ftp://host", "images"), ("http://host:19530", "my images")):
        with pytest.raises(ConfigError):
            address(uri, name)
    assert address("https://host:443", "images").uri == "https://host:443"
    with pytest.raises(ConfigError, match="--engine milvus"):
        mcip.index("photos", tmp_path / "t.lance", uri="http://host:19530")
    with pytest.raises(ConfigError, match="--ann"):
        mcip.index("photos", tmp_path / "t.lance", engine="milvus", uri="http://host:19530", ann="graph")


def test_only_this_machine_reaches_the_server_of_the_tests(milvus_server: Server) -> None:
    own, other = Path("/proc/self"), Path(f"/proc/{milvus_server.process}")
    assert (own / "ns/net").readlink() != (other / "ns/net").readlink()
    interfaces = (other / "net/dev").read_text().splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in interfaces] == ["lo"]
    # The port on this side: loopback's, 127.0.0.1.
    port = int(milvus_server.uri.rpartition(":")[2])
    listening = [line.split()[1] for line in (own / "net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
