"""Least scores: what unrelated queries reach, what they return, and what related ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mcip.core.choices import Fusion
from mcip.core.errors import ArtefactError, ConfigError
from mcip.retrieval import fusions
from mcip.retrieval.ann.cache import SCORES
from mcip.retrieval.fusion import Part
from mcip.retrieval.identity import Identity
from mcip.retrieval.index import Index
from mcip.retrieval.ranking import score_vectors
from mcip.retrieval.score_calibration import (
    NullDistribution,
    ScoreCalibration,
    chance_of,
    unrelated_best,
    without_matches,
)
from mcip.retrieval.table import create_table, schema_of

from .ann.cloud import DIM, new_table, rows, unit

IMAGES = 500


def test_the_fit_gives_back_what_was_drawn() -> None:
    uniform = np.random.default_rng(0).uniform(size=200_000)
    for shape in (0.0, 0.1):
        drawn = -np.log(-np.log(uniform)) if shape == 0 else (1 - (-np.log(uniform)) ** shape) / shape
        null = NullDistribution.fit(0.2 + 0.03 * drawn)
        assert null is not None
        assert (null.location, null.scale, null.shape) == pytest.approx((0.2, 0.03, shape), abs=0.01)
        for chance in (0.1, 0.01, 0.001):
            assert np.mean(0.2 + 0.03 * drawn >= null.score(chance)) == pytest.approx(chance, rel=0.2)


def test_fewer_normal_scores_than_stated_pass() -> None:
    scores = np.random.default_rng(0).normal(size=100_000)
    null = NullDistribution.fit(scores)
    assert null is not None
    assert 0 < np.mean(scores >= null.score(1 / 100)) < 1 / 100
    assert np.mean(scores >= null.score(1 / 1000)) < 1 / 1000


def test_a_constant_and_too_few_scores() -> None:
    null = NullDistribution.fit(np.full(20, 0.5))
    assert null is not None
    assert null.score(0.001) == pytest.approx(0.5)
    assert NullDistribution.fit(np.arange(19.0)) is None


def test_a_second_group_of_queries_far_above_the_others_is_left_out() -> None:
    unrelated = np.random.default_rng(0).gumbel(0.48, 0.01, 300)
    np.testing.assert_array_equal(without_matches(unrelated), unrelated)
    np.testing.assert_array_equal(without_matches(np.full(30, 0.5)), np.full(30, 0.5))
    related = np.random.default_rng(1).normal(0.65, 0.02, 90)
    null = NullDistribution.fit(without_matches(np.concatenate([related, unrelated])))
    assert null is not None
    assert null.score(1 / 1000) == pytest.approx(0.48 + 6.907 * 0.01, abs=0.005)


def test_queries_that_find_what_they_look_for_count_as_if_they_had_not() -> None:
    rng = np.random.default_rng(0)
    sampled = rng.normal(0.1, 0.02, (200, 1000))
    best = sampled.max(1)
    found = np.concatenate([best[:150], np.full(50, 0.9)])
    counted = unrelated_best(found, sampled, 1000)
    assert np.mean(counted[:150] == best[:150]) > 0.98
    # 4.9 deviations: what the largest of 1,000 normal scores reaches in one of a thousand cases.
    assert counted[150:] == pytest.approx(np.full(50, 0.1 + 4.9 * 0.02), abs=0.015)


@pytest.mark.parametrize(("text", "chance"), [("1/1000", 1 / 1000), (" 1 / 50 ", 1 / 50), ("0.25", None), (-1, None)])
def test_chances_and_scores_are_told_apart(text: str | float, chance: float | None) -> None:
    assert chance_of(text) == chance


@pytest.mark.parametrize("wrong", ["2/1000", "1/0", "1/1", "often", "nan", "", "1/1000x"])
def test_what_is_neither_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="write 1/1000"):
        chance_of(wrong)


def draw(rng: np.random.Generator, count: int, side: int) -> NDArray[np.float32]:
    """Directions without anything in common but their side of the sphere, as images, or texts, of all kinds have."""
    return unit(1.5 * side * np.eye(DIM * 4)[:1] + rng.standard_normal((count, DIM * 4)))


def sphere_of(place: Path, side: int, seed: int = 5) -> tuple[Index, NDArray[np.float32]]:
    """An index of 500 images, whose texts lie on a side of the sphere, and their vectors."""
    vectors = draw(np.random.default_rng(seed), IMAGES, 1)
    identity = Identity.new(model="none", fingerprint="f", dim=DIM * 4, transform="model", thumbnails=0)
    table = create_table(str(place / "t.lance"), schema_of(identity, pa.schema({"kind": pa.string()})))
    table = table.append(rows(vectors))
    return Index(table.uri, probe_texts=lambda _: draw(np.random.default_rng([seed, 1]), 300, side)), vectors


@pytest.fixture(scope="module")
def spheres(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Index, NDArray[np.float32]]]:
    return [sphere_of(tmp_path_factory.mktemp("sphere"), -1, seed) for seed in range(5)]


@pytest.fixture
def sphere(spheres: list[tuple[Index, NDArray[np.float32]]]) -> tuple[Index, NDArray[np.float32]]:
    return spheres[0]


def of_kind(kind: str, images: NDArray[np.float32], texts: NDArray[np.float32]) -> list[list[Part]]:
    """Queries of a kind."""
    parts = zip((Part(one, "image") for one in images), (Part(one, "text") for one in texts), strict=True)
    return [[image] if kind == "image" else [text] if kind == "text" else [image, text] for image, text in parts]


@pytest.mark.parametrize("kind", ["image", "text", "mixed"])
def test_unrelated_queries_return_nothing_as_often_as_stated(
    spheres: list[tuple[Index, NDArray[np.float32]]], kind: str
) -> None:
    rng, answered, queries = np.random.default_rng(7), {20: 0, 1000: 0}, 0
    for index, _ in spheres:
        unrelated = of_kind(kind, draw(rng, 700, 1), draw(rng, 700, -1))
        everything, background = index.engine.take(np.arange(IMAGES)), index.engine.background
        asked = [parts[0] if kind != "mixed" else background.standardized(parts) for parts in unrelated]
        best = np.array([score_vectors(query, everything).max() for query in asked])
        for rare in answered:
            answered[rare] += int((best >= index.engine.calibration.least(f"1/{rare}", kind)).sum())
        queries += len(unrelated)
    # What 300 queries tell of one in twenty is that to about a quarter.
    assert answered[20] <= 1.25 * queries / 20
    assert answered[1000] <= queries / 1000


@pytest.mark.parametrize("kind", ["image", "text", "mixed"])
def test_related_queries_find_what_they_look_for(sphere: tuple[Index, NDArray[np.float32]], kind: str) -> None:
    index, vectors = sphere
    noise = np.random.default_rng(8).standard_normal((50, DIM * 4))
    near = unit(vectors[:50] + 0.05 * noise), unit(vectors[:50] - 0.6 * np.eye(DIM * 4)[:1])
    for number, parts in enumerate(of_kind(kind, *near)):
        assert index.snapshot().search_parts(parts, 5, min_score="1/1000")[0].id == f"{number:05d}"


def test_a_least_score_cuts_the_ranking_and_leaves_its_order(sphere: tuple[Index, NDArray[np.float32]]) -> None:
    index, vectors = sphere
    snapshot, part = index.snapshot(), Part(vectors[3], "image")
    whole = snapshot.search_parts([part], IMAGES)
    least = whole[40].score
    for k, offset in ((5, 0), (100, 0), (10, 35), (10, 41)):
        found = snapshot.search_parts([part], k, offset, min_score=least)
        assert list(found) == list(whole)[: sum(hit.score >= least for hit in whole)][offset : offset + k]
    assert whole.line == index.engine.calibration.line("image")
    collapsed = snapshot.search_parts([part], IMAGES, collapse=0.999, min_score=str(least))
    assert list(collapsed) == [hit for hit in whole if hit.score >= least]


@pytest.mark.parametrize(("fusion", "side"), [("product", 1), ("basic", -1)])
def test_other_fusions_are_calibrated_once(
    tmp_path: Path, fusion: Fusion, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Products say nothing where all cosines to a text are negative.
    index, _ = sphere_of(tmp_path, side)
    rng = np.random.default_rng(8)
    pairs = list(zip(draw(rng, 100, 1), draw(rng, 100, side), strict=True))
    snapshot = index.snapshot()
    found = [
        len(snapshot.search_parts([Part(a, "image"), Part(b, "text")], 1, min_score="1/20", fusion=fusion))
        for a, b in pairs
    ]
    assert sum(found) <= 10
    # Another process, and a larger index whose first query shall not wait, find it done.
    monkeypatch.setattr(fusions, "_QUICK", 100)
    index.snapshot().prepare()
    monkeypatch.setattr(fusions, "calibrate_mixed", None)
    again = Index(index.uri, probe_texts=lambda _: draw(np.random.default_rng([5, 1]), 300, side)).snapshot()
    query = [Part(pairs[0][0], "image"), Part(pairs[0][1], "text")]
    assert again.search_parts(query, 1, fusion=fusion).line == snapshot.search_parts(query, 1, fusion=fusion).line
    # One that is damaged is taken again.
    (index.folder / f"{fusion}.scores.json").write_text("{")
    monkeypatch.undo()
    newest = Index(index.uri, probe_texts=lambda _: draw(np.random.default_rng([5, 1]), 300, side)).snapshot()
    assert newest.search_parts(query, 1, fusion=fusion).line is not None


def test_a_small_index_says_that_it_cannot_tell(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t.lance", unit(np.random.default_rng(0).standard_normal((5, DIM))))
    index = Index(table.uri, probe_texts=lambda _: unit(np.random.default_rng(1).standard_normal((30, DIM))))
    query = Part(index.vector("00001"), "image")
    assert index.snapshot().search_parts([query]).line is None
    with pytest.raises(ConfigError, match="too little to tell how often unrelated image queries"):
        index.snapshot().search_parts([query], min_score="1/1000")
    assert len(index.snapshot().search_parts([query], min_score=0.99)) == 1
    text = Part(index.vector("00001"), "text")
    assert index.snapshot().search_parts([text]).line is not None


def test_the_distributions_are_a_derived_file_of_their_generation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = new_table(tmp_path / "t.lance", unit(rng.standard_normal((60, DIM))))
    embedded: list[int] = []

    def embed(texts: object) -> NDArray[np.float32]:
        embedded.append(1)
        return unit(np.random.default_rng(1).standard_normal((40, DIM)))

    index = Index(table.uri, probe_texts=embed)
    path, before = index.folder / f"1{SCORES}", index.engine.calibration
    assert path.is_file()
    path.write_text("{")
    assert Index(table.uri, probe_texts=embed).engine.calibration == before
    assert len(embedded) == 1
    path.write_text('{"image": {"location": 1}}')
    with pytest.raises(ArtefactError, match="is damaged"):
        ScoreCalibration.load(path)
    # More than a fifth of the rows is gone: a new generation, whose distributions are its own.
    table.latest().delete([f"{number:05d}" for number in range(20)])
    newer = Index(table.uri, probe_texts=embed)
    assert newer.engine.state.scores == f"2{SCORES}"
    assert newer.engine.calibration != before
    assert not path.exists()
