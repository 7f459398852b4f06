"""Exact search, the graph, the index on disk, recall, and what is kept beside a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.retrieval.ann import calibrate, hnsw, lance_disk
from mcip.retrieval.ann.cache import derived_folder, graph_file, read_state, vectors_file
from mcip.retrieval.ann.engine import TEXTS, Chosen
from mcip.retrieval.ann.exact import exact_search
from mcip.retrieval.ann.phrases import phrases
from mcip.retrieval.ann.select import EXACT_VALUES, choose, graph_bytes
from mcip.retrieval.index import Index
from mcip.retrieval.table import Identity, IndexTable, create_table, open_table, schema_of, vectors_array

DIM = 24


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def cloud(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors in clusters, on one side of the sphere."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, DIM))
    return unit(2 * np.eye(DIM)[:1] + centers[rng.integers(20, size=rows)] + 0.5 * rng.standard_normal((rows, DIM)))


def texts() -> NDArray[np.float32]:
    """Vectors away from the cloud."""
    return unit(np.random.default_rng(9).standard_normal((50, DIM)) - 2 * np.eye(DIM)[:1])


def rows(vectors: NDArray[np.float32], first: int = 0, kind: str = "a") -> pa.Table:
    count = len(vectors)
    names = [f"{number:05d}" for number in range(first, first + count)]
    return pa.table(
        {
            "id": names, "vector": vectors_array(vectors), "path": names, "width": pa.array([1] * count, pa.int32()),
            "height": pa.array([1] * count, pa.int32()), "hash": [f"{hash_of(v):016x}" for v in vectors],
            "stamp": names, "kind": [kind] * count,
        }
    )  # fmt: skip


def hash_of(vector: NDArray[np.float32]) -> int:
    return int(abs(float(vector.sum())) * 1e9)


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    """600 rows of vectors, without pictures."""
    identity = Identity.new(model="none", fingerprint="f", dim=DIM, transform="model", thumbnails=0)
    made = create_table(str(tmp_path / "t.lance"), schema_of(identity, pa.schema({"kind": pa.string()})))
    return made.append(rows(cloud(600)))


def naive(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, numbers: list[int]) -> list[int]:
    half = vectors.astype(np.float16).astype(np.float32)
    return sorted(numbers, key=lambda number: (-float(half[number] @ query), number))[:k]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), count=st.integers(0, 60), queries=st.integers(1, 12), k=st.integers(1, 70), data=st.data()
)
def test_exact_search_is_a_full_sort(seed: int, count: int, queries: int, k: int, data: st.DataObject) -> None:
    vectors, asked = cloud(60, seed)[:count], cloud(queries, seed + 1)
    among = None
    if data.draw(st.booleans()):
        among = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, count - 1)))) if count else []), np.int64)
    scores, found = exact_search(vectors.astype(np.float16), asked, k, among)
    numbers = list(range(count)) if among is None else among.tolist()
    for query, row_scores, row in zip(asked, scores, found, strict=True):
        wanted = naive(vectors, query, k, numbers)
        products = [float(vectors[number].astype(np.float16).astype(np.float32) @ query) for number in wanted]
        np.testing.assert_allclose(row_scores, products, atol=1e-6)
        assert len(set(row.tolist())) == len(wanted)
        assert set(row.tolist()) <= set(numbers)


def test_choice_by_size_and_memory() -> None:
    assert choose(EXACT_VALUES // 512, 512) == "exact"
    assert choose(EXACT_VALUES // 512 + 1, 512, memory=10**12) == "graph"
    assert choose(10**6, 768, memory=2 * graph_bytes(10**6, 768)) == "graph"
    assert choose(10**6, 768, memory=2 * graph_bytes(10**6, 768) - 2) == "disk"


@pytest.mark.parametrize("ann", ["exact", "graph", "disk"])
def test_every_method_finds_what_a_full_sort_does(ann: str, table: IndexTable) -> None:
    vectors, queries = cloud(600), np.concatenate([cloud(8, 5), texts()[:8]])
    index = Index(table.uri, ann=ann, texts=texts, target=0.99)  # type: ignore[arg-type]
    assert index.engine.state.method == ann
    for exact in (False, True):
        hits = 0
        for query in queries:
            found = index.search_vectors(query[None], "text", 10, exact=exact)[0]
            wanted = naive(vectors, query, 10, list(range(600)))
            hits += len({int(hit.id) for hit in found} & set(wanted))
            products = [float(vectors[int(hit.id)] @ query) for hit in found]
            assert [hit.score for hit in found] == pytest.approx(products, abs=1e-3)
        assert hits >= (160 if exact else 152)


def test_graph_grows_as_if_made_at_once(tmp_path: Path) -> None:
    vectors = cloud(500).astype(np.float16)
    added: list[int] = []
    for count in (200, 200, 500):
        hnsw.grow_graph(tmp_path / "g", vectors[:count], added.append)
    grown = hnsw.Graph(tmp_path / "g", DIM)
    assert (len(grown), sum(added)) == (500, 500)
    for number in (0, 199, 200, 499):
        assert number in grown.search(vectors[number].astype(np.float32), 3, 128)
    (tmp_path / "g").write_bytes(b"damaged")
    hnsw.grow_graph(tmp_path / "g", vectors)
    assert len(hnsw.Graph(tmp_path / "g", DIM)) == 500


def test_wider_search_for_more_neighbours(tmp_path: Path) -> None:
    vectors = cloud(500).astype(np.float16)
    hnsw.grow_graph(tmp_path / "g", vectors)
    found = hnsw.Graph(tmp_path / "g", DIM).search(vectors[0].astype(np.float32), 300, 32)
    assert len(set(found.tolist())) == 300


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_changes_of_the_table_reach_the_derived_files(ann: str, table: IndexTable) -> None:
    index = Index(table.uri, ann=ann, texts=texts)  # type: ignore[arg-type]
    making = index.engine.state.making
    new = cloud(40, 7)
    table = open_table(table.uri).append(rows(new, 600, "b"))
    table = table.upsert(rows(new[:5] * np.float32(-1), 0))
    table = table.delete([f"{number:05d}" for number in range(5, 25)])
    index.refresh()
    state = index.engine.state
    assert (state.making, state.slots, len(index)) == (making, 645, 620)
    reopened = Index(table.uri)
    for one in (index, reopened):
        assert one.engine.state.asked == ann
        found = one.search_vectors(np.concatenate([new[:1], -new[:1]]), "image", 620, exact=True)
        assert [hits[0].id for hits in found] == ["00600", "00000"]
        assert len({hit.id for hit in found[0]}) == 620
        assert {hit.id for hit in one.search_vectors(new[:1], "image", 50)[0]}.isdisjoint(
            f"{number:05d}" for number in range(5, 25)
        )
    # With more than a fifth of the slots dead, everything is made anew.
    open_table(table.uri).delete([f"{number:05d}" for number in range(25, 225)])
    index.refresh()
    assert (index.engine.state.making, index.engine.state.slots) == (making + 1, 420)
    folder = derived_folder(table.uri)
    assert not vectors_file(folder, making).exists()
    assert vectors_file(folder, making + 1).stat().st_size == 420 * DIM * 2


def test_derived_files_are_made_again_when_they_are_gone_or_damaged(table: IndexTable) -> None:
    index = Index(table.uri, ann="graph", texts=texts)
    folder = index.folder
    wanted = index.search_vectors(cloud(5, 3), "image", 10, exact=True)
    making = index.engine.state.making
    for damage in (
        lambda: (folder / "state.json").write_text("{"),
        lambda: (folder / "state.json").unlink(),
        lambda: next(folder.glob("*.vectors.f16")).write_bytes(b""),
        lambda: next(folder.glob("*.graph.usearch")).unlink(),
        lambda: (folder / "similarities.npz").unlink(),
    ):
        damage()
        again = Index(table.uri, ann="graph", texts=texts)
        assert again.search_vectors(cloud(5, 3), "image", 10, exact=True) == wanted
        assert again.engine.graph is not None
        assert len(again.engine.graph) == 600
    assert graph_file(folder, again.engine.state.making).exists()
    assert again.engine.state.making > making


def test_files_of_another_table_at_the_same_place_are_not_used(table: IndexTable, tmp_path: Path) -> None:
    first = Index(table.uri, texts=texts)
    Path(table.uri).rename(tmp_path / "old.lance")
    identity = Identity.new(model="none", fingerprint="f", dim=DIM, transform="model", thumbnails=0)
    made = create_table(table.uri, schema_of(identity, pa.schema({"kind": pa.string()})))
    made.append(rows(cloud(600, 8)))
    assert read_state(first.folder, made.latest()) is None
    found = Index(table.uri, texts=texts).search_vectors(cloud(600, 8)[:1], "image", 1)
    assert found[0][0].id == "00000"
    assert found[0][0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("ann", ["graph", "disk"])
@pytest.mark.parametrize("share", [2, 10])
def test_filtered_search_by_every_way(ann: str, share: int, table: IndexTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.upsert(rows(cloud(600)[: 600 // share], 0, "b"))
    index = Index(table.uri, ann=ann, texts=texts, target=1.0)  # type: ignore[arg-type]
    allowed = index.engine.matching("kind = 'b'")
    assert isinstance(allowed, Chosen)
    assert len(allowed.slots) == 600 // share
    query = cloud(1, 4)
    wanted = naive(cloud(600), query[0], 10, list(range(600 // share)))
    by_way = []
    for selective in (EXACT_VALUES, 0):
        monkeypatch.setattr("mcip.retrieval.ann.engine._SELECTIVE", selective)
        by_way.append([int(hit.id) for hit in index.search_vectors(query, "image", 10, where="kind = 'b'")[0]])
    assert by_way[0] == wanted
    assert len(set(by_way[1]) & set(wanted)) >= 9
    assert max(by_way[1]) < 600 // share


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    identity = Identity.new(model="none", fingerprint="f", dim=DIM, transform="model", thumbnails=0)
    create_table(str(tmp_path / "t.lance"), schema_of(identity, pa.schema({})))
    with pytest.raises(ConfigError, match="holds no pictures"):
        Index(tmp_path / "t.lance", texts=texts)


def test_recall_counts_equal_products_and_not_the_query_itself() -> None:
    vectors = np.repeat(cloud(15), 2, axis=0).astype(np.float16)

    def exact(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return exact_search(vectors, queries, k)

    own = np.array([0, 8])
    wanted = calibrate.sample(exact, vectors[own].astype(np.float32), own)

    def found(skip: int) -> Callable[..., tuple[NDArray[np.float32], NDArray[np.int64]]]:
        def search(query: NDArray[np.float32], k: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            scores, numbers = exact_search(vectors, query[None], k + skip)
            return scores[0][skip:], numbers[0][skip:]

        return search

    assert calibrate.measure(found(0), 1, wanted)[0] == 1.0
    # Without the twin and the next pair, seven of the ten are left, and the twin of the tenth counts as well as it.
    assert calibrate.measure(found(4), 1, wanted)[0] == pytest.approx(0.8)


def test_the_least_width_that_reaches_the_target_is_chosen() -> None:
    vectors = cloud(300).astype(np.float16)

    def exact(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return exact_search(vectors, queries, k)

    wanted = calibrate.sample(exact, texts())

    def search(query: NDArray[np.float32], k: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the best `width` of ten only."""
        scores, numbers = exact_search(vectors, query[None], k)
        return scores[0][:width], numbers[0][:width]

    chosen = calibrate.tune(search, (3, 8, 9, 10), wanted, 0.85, 1e9)
    assert (chosen.width, chosen.queries) == (9, 50)
    assert chosen.recall == pytest.approx(0.9)
    assert calibrate.tune(search, (3, 8), wanted, 0.85, 1e9).width == 0
    assert calibrate.tune(search, (3, 8, 9, 10), wanted, 0.85, 0.0).width == 0


def test_image_queries_are_near_their_vectors_but_not_at_them() -> None:
    vectors = cloud(50)
    cosines = (calibrate.image_queries(vectors) * vectors).sum(1)
    assert cosines.max() < 0.99
    assert abs(cosines.mean() - 1 / np.sqrt(1.25)) < 0.05


def test_settings_are_measured_for_every_kind(table: IndexTable) -> None:
    index = Index(table.uri, ann="graph", texts=texts, target=0.95)
    found = index.engine.state.settings
    assert set(found) == {"image", "text", "mixed"}
    assert all(setting.recall >= 0.95 for setting in found.values())
    np.testing.assert_array_equal(np.load(index.folder / TEXTS), texts())
    again = Index(table.uri, texts=texts, measure=True).engine.state
    assert {kind: setting.queries for kind, setting in again.settings.items()} == {
        "image": 200, "text": 50, "mixed": 50,
    }  # fmt: skip


def test_widths_of_the_index_on_disk_end_with_all_partitions() -> None:
    assert lance_disk.widths(1) == (1,)
    assert lance_disk.widths(100) == (1, 2, 4, 8, 10)
    assert lance_disk.widths(256) == (1, 2, 4, 8, 16)


def test_phrases_differ() -> None:
    assert len(set(phrases())) == len(phrases()) > 250
