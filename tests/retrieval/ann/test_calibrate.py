"""Recall, measured against exact search, and the width that is chosen by it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcip.retrieval.ann import calibrate, hnsw
from mcip.retrieval.ann.cache import PROBES
from mcip.retrieval.ann.exact import Ranked, exact_search, rescore
from mcip.retrieval.ann.probe_texts import default_texts
from mcip.retrieval.index import Index
from mcip.retrieval.table import IndexTable

from .cloud import cloud, probes, unit


def test_recall_counts_equal_products_and_not_the_query_itself() -> None:
    vectors = np.repeat(cloud(15), 2, axis=0).astype(np.float16)
    sources = np.array([0, 8])
    expected = calibrate.sample(
        lambda queries, k: exact_search(vectors, queries, k), vectors[sources].astype(np.float32), sources
    )

    def without_the_best(skip: int) -> calibrate.SearchAt:
        def search(query: NDArray[np.float32], k: int, width: int) -> Ranked:
            scores, numbers = exact_search(vectors, query[None], k + skip)
            return scores[0][skip:], numbers[0][skip:]

        return search

    assert calibrate.recall_at(without_the_best(0), 1, expected)[0] == 1.0
    # Without the twin and the next pair, seven of the ten are left, and the twin of the tenth counts as well as it.
    assert calibrate.recall_at(without_the_best(4), 1, expected)[0] == pytest.approx(0.8)


def test_the_least_width_that_reaches_the_target_is_chosen() -> None:
    vectors = cloud(300).astype(np.float16)
    expected = calibrate.sample(lambda queries, k: exact_search(vectors, queries, k), probes())

    def search(query: NDArray[np.float32], k: int, width: int) -> Ranked:
        """Finds the best `width` of ten only."""
        scores, numbers = exact_search(vectors, query[None], k)
        return scores[0][:width], numbers[0][:width]

    setting = calibrate.calibrate(search, (3, 8, 9, 10), expected, 0.85, 1e9)
    assert (setting.width, setting.queries) == (9, 50)
    assert setting.recall == pytest.approx(0.9)
    assert calibrate.calibrate(search, (3, 8), expected, 0.85, 1e9).width == 0
    assert calibrate.calibrate(search, (3, 8, 9, 10), expected, 0.85, 0.0).width == 0


def test_a_width_reaches_the_target_by_its_standard_error() -> None:
    # A half of the queries find all of their neighbours, the others eight of ten: 0.9, with an error of 0.1 / sqrt(Q).
    vectors, expected = np.eye(100, dtype=np.float32), 50
    products = np.tile(np.linspace(1, 0.1, 10, dtype=np.float32), (expected, 1))
    sample = calibrate.Sample(vectors[:expected], products[:, -1], np.full(expected, -1))
    calls = itertools.count()

    def search(query: NDArray[np.float32], k: int, width: int) -> Ranked:
        found = 10 if next(calls) % 2 else 8
        return products[0][:found], np.arange(found)

    measured = calibrate.recall_at(search, 1, sample)
    assert measured.recall == pytest.approx(0.9)
    assert measured.error == pytest.approx(0.1 / np.sqrt(expected))
    assert measured.reaches(0.885)
    assert not measured.reaches(0.89)


def test_sample_queries_are_no_easier_than_images_that_are_not_in_the_table(tmp_path: Path) -> None:
    # In many dimensions, most of the variance in a few of them, as embeddings have it.
    scales, rng = 1 / np.sqrt(np.arange(1, 513)), np.random.default_rng(1)
    centers = rng.standard_normal((60, 512)) * scales

    def images(count: int) -> NDArray[np.float32]:
        spread = centers[rng.integers(60, size=count)] + 1.2 * rng.standard_normal((count, 512)) * scales
        return unit(spread + 3 * np.eye(512)[0])

    vectors = images(6000).astype(np.float16)
    hnsw.grow_graph(vectors, tmp_path / "graph")
    graph = hnsw.Graph(tmp_path / "graph", 512)

    def recalls(queries: NDArray[np.float32], sources: NDArray[np.int64] | None = None) -> float:
        sample = calibrate.sample(lambda queries, k: exact_search(vectors, queries, k), queries, sources)
        measured = [
            calibrate.recall_at(
                lambda query, k, width: rescore(vectors, query, graph.search(query, 16, width), k), width, sample
            )
            for width in (16, 24, 32)
        ]
        return float(np.mean([one.recall for one in measured]))

    sources = np.arange(0, 4000, 10)
    queries = calibrate.image_queries(vectors[sources])
    assert 0.5 < (queries * vectors[sources]).sum(1).min() < 0.99
    assert recalls(queries, sources) <= recalls(images(400)) < recalls(vectors[sources].astype(np.float32), sources)


def test_every_kind_of_query_is_calibrated(table: IndexTable) -> None:
    index = Index(table.uri, ann="graph", probe_texts=probes, target=0.95)
    settings = index.engine.state.settings
    assert set(settings) == {"image", "text", "mixed"}
    assert all(setting.recall >= 0.95 for setting in settings.values())
    np.testing.assert_array_equal(np.load(index.folder / PROBES), probes())
    again = Index(table.uri, probe_texts=probes, recalibrate=True).engine.state
    assert {kind: setting.queries for kind, setting in again.settings.items()} == {
        "image": 400, "text": 50, "mixed": 50,
    }  # fmt: skip


def test_phrases_differ() -> None:
    assert len(set(default_texts())) == len(default_texts()) > 250


def test_another_target_is_calibrated_for(table: IndexTable, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[float] = []

    def watched(search: object, widths: object, expected: object, target: float, exact: float) -> calibrate.Setting:
        targets.append(target)
        return calibrate.Setting(32, 1.0, 0.0, 0, exact)

    monkeypatch.setattr("mcip.retrieval.ann.opening.calibrate", watched)
    for target in (0.9, None, 0.9, 0.99, None):
        Index(table.uri, ann="graph", probe_texts=probes, target=target)
    assert targets == [0.9] * 3 + [0.99] * 3
