"""Every method of searching: what it finds, filters, and results that do not depend on how many are requested."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.retrieval.ann import lance_disk
from mcip.retrieval.ann.calibrate import QueryKind, Setting
from mcip.retrieval.ann.deepening import search_in_steps
from mcip.retrieval.ann.exact import Ranked
from mcip.retrieval.ann.select import EXACT_VALUES
from mcip.retrieval.index import Index
from mcip.retrieval.table import IndexTable

from .cloud import cloud, full_sort, new_table, probes, rows


@pytest.mark.parametrize("ann", ["exact", "graph", "disk"])
def test_every_method_finds_what_a_full_sort_does(ann: str, table: IndexTable) -> None:
    vectors, queries = cloud(600), np.concatenate([cloud(8, 5), probes()[:8]])
    index = Index(table.uri, ann=ann, probe_texts=probes, target=0.99)  # type: ignore[arg-type]
    assert index.engine.state.method == ann
    for exact in (False, True):
        right = 0
        for query in queries:
            results = index.search_vectors(query[None], "text", 10, exact=exact)[0]
            right += len({int(hit.id) for hit in results} & set(full_sort(vectors, query, 10, list(range(600)))))
            products = [float(vectors[int(hit.id)] @ query) for hit in results]
            assert [hit.score for hit in results] == pytest.approx(products, abs=1e-3)
        assert right >= (160 if exact else 152)


def narrow(index: Index) -> Index:
    """Search by the narrowest width, which misses many of the vectors that a wider one finds."""
    if index.engine.state.method != "exact":
        kinds: tuple[QueryKind, ...] = ("image", "text", "mixed")
        index.engine.state.settings = dict.fromkeys(kinds, Setting(1, 0.0, 0.0, 0, 0.0))
    return index


@pytest.mark.parametrize("ann", ["exact", "graph", "disk"])
@pytest.mark.parametrize("where", [None, "kind = 'b'", "kind = 'a'"])
def test_scores_and_order_do_not_depend_on_k(
    ann: str, where: str | None, table: IndexTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcip.retrieval.ann.engine._SELECTIVE", 0)
    table.upsert(rows(cloud(600)[:60], 0, "b"))
    # With twins of equal score, and rows that are gone.
    table = table.latest().append(rows(cloud(600)[100:200], 600, "a")).delete([f"{at:05d}" for at in range(300, 320)])
    index = narrow(Index(table.uri, ann=ann, probe_texts=probes))  # type: ignore[arg-type]
    for query in (*cloud(5, 11), *probes()[:5]):
        whole = index.search_vectors(query[None], "text", 400, where)[0].hits
        scores = [hit.score for hit in whole]
        assert scores == sorted(scores, reverse=True)
        # Lance draws its partitions at random, and what so narrow a search finds too late is left out.
        least = (10 if ann == "disk" else 30) if where == "kind = 'b'" else 64 if ann == "disk" else 400
        assert len({hit.id for hit in whole}) == len(whole) >= least
        for k in (1, 5, 12, 13, 40, 48, 49, 192, 193, 257):
            assert index.search_vectors(query[None], "text", k, where)[0].hits == whole[:k]
        for above, below in itertools.pairwise(whole):
            assert above.score > below.score or above.id < below.id


def test_pages_of_the_graph_fit_together(table: IndexTable) -> None:
    index = narrow(Index(table.uri, ann="graph", probe_texts=probes))
    whole = list(index.search(image="id:00007", k=300))
    assert [hit for at in range(0, 300, 50) for hit in index.search(image="id:00007", k=50, offset=at)] == whole
    similar = list(index.similar("00007", 299))
    assert similar == whole[1:]
    assert [hit for at in range(0, 299, 23) for hit in index.similar("00007", 23, offset=at)][:299] == similar


def test_what_a_wider_search_finds_too_late_is_left_out() -> None:
    scores = np.linspace(1, 0, 100).astype(np.float32)

    def search(depth: int) -> Ranked:
        """Misses vector 3 unless it is wide."""
        numbers = np.array([number for number in range(100) if number != 3 or depth > 20])[:depth]
        return scores[numbers], numbers

    assert search_in_steps(search, 16, 100)[1].tolist() == [0, 1, 2, *range(4, 17)]
    assert search_in_steps(search, 90, 100)[1].tolist() == [0, 1, 2, *range(4, 91)]
    # One of the hundred is left out, so that 99 are left to be found.
    assert search_in_steps(search, 200, 100)[1].tolist() == [0, 1, 2, *range(4, 100)]
    assert len(search_in_steps(lambda _: (scores[:0], np.empty(0, np.int64)), 5, 0)[1]) == 0


@pytest.mark.parametrize("ann", ["graph", "disk"])
@pytest.mark.parametrize("share", [2, 10])
def test_filtered_search_by_every_way(ann: str, share: int, table: IndexTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.upsert(rows(cloud(600)[: 600 // share], 0, "b"))
    index = Index(table.uri, ann=ann, probe_texts=probes, target=1.0)  # type: ignore[arg-type]
    assert len(index.engine.matching("kind = 'b'").slots) == 600 // share
    query = cloud(1, 4)
    expected = full_sort(cloud(600), query[0], 10, list(range(600 // share)))
    by_way = []
    for selective in (EXACT_VALUES, 0):
        monkeypatch.setattr("mcip.retrieval.ann.engine._SELECTIVE", selective)
        by_way.append([int(hit.id) for hit in index.search_vectors(query, "image", 10, where="kind = 'b'")[0]])
    assert by_way[0] == expected
    assert len(set(by_way[1]) & set(expected)) >= 9
    assert max(by_way[1]) < 600 // share


def test_a_filter_widens_the_search_on_disk(table: IndexTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcip.retrieval.ann.engine._SELECTIVE", 0)
    table.upsert(rows(cloud(600)[:60], 0, "b"))
    index = narrow(Index(table.uri, ann="disk", probe_texts=probes))
    visited: list[int] = []
    search = lance_disk.disk_search

    def noting(table: IndexTable, query: object, k: int, width: int, where: str | None = None) -> Ranked:
        visited.append(width)
        return search(table, query, k, width, where)  # type: ignore[arg-type]

    monkeypatch.setattr("mcip.retrieval.ann.lance_disk.disk_search", noting)
    for where in (None, "kind = 'a'", "kind = 'b'"):
        index.search_vectors(cloud(1, 4), "image", 5, where=where)
    # A width of 1, for 600, 540 and 60 of 600 rows: the square root of their share.
    assert visited == [1, 2, 4]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    new_table(tmp_path / "t.lance")
    with pytest.raises(ConfigError, match="holds no images"):
        Index(tmp_path / "t.lance", probe_texts=probes)


def test_widths_of_the_index_on_disk_end_with_all_partitions() -> None:
    assert lance_disk.widths(1) == (1,)
    assert lance_disk.widths(100) == (1, 2, 4, 8, 10)
    assert lance_disk.widths(256) == (1, 2, 4, 8, 16)


def test_an_index_on_disk_that_cannot_be_written_is_reported(
    table: IndexTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("lance.LanceDataset.create_index", fail)
    with pytest.raises(ArtefactError, match=r"cannot be written into it \(Read-only file system\): run `mcip index`"):
        Index(table.uri, ann="disk", probe_texts=probes)


def test_the_vector_of_an_id_is_that_of_its_newest_image(table: IndexTable) -> None:
    table.upsert(rows(-cloud(600)[:3], 0, "b"))
    table = table.latest().delete(["00001"])
    index = Index(table.uri, probe_texts=probes)
    for number, sign in ((0, -1), (2, -1), (3, 1), (599, 1)):
        np.testing.assert_allclose(index.vector(f"{number:05d}"), sign * cloud(600)[number], atol=1e-3)
    for gone in ("00001", "none", "\ud800"):
        with pytest.raises(DataError, match="no image with the id"):
            index.vector(gone)
