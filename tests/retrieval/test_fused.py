"""Fusions that want both parts: by their formulas, and the same for every k wherever a graph is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcip.core.choices import Fusion
from mcip.core.errors import ConfigError
from mcip.data.corpora import STYLES, SUBJECTS
from mcip.retrieval.contrast import Contrast
from mcip.retrieval.fused import basic, product
from mcip.retrieval.fusion import Background, Part
from mcip.retrieval.index import Index

from .ann.cloud import cloud, new_table, probes, unit

DIM = 12


def drawn(seed: int, count: int = 40) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, DIM)) + 0.5)


def standard(scores: list[float], sample: list[float]) -> NDArray[np.floating]:
    values: NDArray[np.floating] = (np.array(scores) - np.mean(sample)) / np.std(sample)
    return values


def test_product_is_that_of_the_cosines() -> None:
    gallery, (image, text, away) = drawn(0), drawn(1, 3)
    background = Background.of(gallery, drawn(2))

    def score(x: NDArray[Any]) -> float:
        return float(max(0, image @ x) ** 0.5 * max(0, text @ x) ** 2 * (1 - max(0, away @ x)) ** 0.25)

    parts = [Part(image, "image", 0.5), Part(text, "text", 2.0), Part(away, "image", -0.25)]
    scores = [score(x) for x in gallery]
    assert product(parts, background).scores(gallery) == pytest.approx(standard(scores, scores), abs=1e-3)


def test_basic_is_the_published_formula() -> None:
    gallery, (image, text), subjects, styles = drawn(0), drawn(1, 2), drawn(3, 60), drawn(4, 30)
    background = Background.of(gallery, drawn(2))
    mean, center = gallery.mean(0), subjects.mean(0)
    scatter = np.zeros((DIM, DIM))
    for one in subjects:
        scatter += 0.8 * np.outer(one - center, one - center) / 59
    for one in styles:
        scatter -= 0.2 * np.outer(one - center, one - center) / 29
    values, axes = np.linalg.eigh(scatter)
    projection = sum(np.outer(axis, axis) for value, axis in zip(values, axes.T, strict=True) if value > 0)
    low_image = min(float((a - mean) @ projection @ (b - mean)) for a in gallery for b in gallery)
    low_text = min(float((a - center) @ (b - mean)) for a in subjects for b in gallery)

    def score(x: NDArray[Any]) -> float:
        u = max(0.0, (float((image - mean) @ projection @ (x - mean)) - low_image) / abs(low_image))
        v = max(0.0, (float((text - center) @ (x - mean)) - low_text) / abs(low_text))
        return u * v - 0.1 * (u + v) ** 2

    contrast = Contrast.of(subjects, styles, background)
    scores = [score(x) for x in gallery]
    query = basic([Part(image, "image"), Part(text, "text")], background, contrast)
    assert query.scores(gallery) == pytest.approx(standard(scores, scores), abs=1e-3)
    with pytest.raises(ConfigError, match="only beside texts to look for"):
        basic([Part(image, "image"), Part(text, "text", -1.0)], background, contrast)
    # Of two images alone, their mean score.
    alone = basic([Part(image, "image"), Part(image, "image")], background, contrast).scores(gallery)
    by_image = [max(0.0, float((image - mean) @ projection @ (x - mean)) - low_image) for x in gallery]
    assert alone == pytest.approx(standard(by_image, by_image), abs=1e-3)


@pytest.mark.parametrize("fusion", ["sum", "product", "basic"])
@pytest.mark.parametrize("ann", ["exact", "graph", "disk"])
def test_mixed_queries_are_the_same_for_every_k(tmp_path: Path, ann: str, fusion: Fusion) -> None:
    index = Index(new_table(tmp_path / "t.lance", cloud(600)).uri, ann=ann, probe_texts=probes)  # type: ignore[arg-type]
    snapshot = index.snapshot()
    for image, text in zip(cloud(3, 11), probes(), strict=False):
        parts = [Part(image, "image"), Part(text, "text")]
        whole = snapshot.search_parts(parts, 300, fusion=fusion).hits
        assert len({hit.id for hit in whole}) == len(whole) == 300
        for k in (1, 5, 17, 65, 200):
            assert snapshot.search_parts(parts, k, fusion=fusion).hits == whole[:k]
        pages = [hit for at in range(0, 300, 60) for hit in snapshot.search_parts(parts, 60, at, fusion=fusion)]
        assert pages == list(whole)


@pytest.mark.parametrize("fusion", ["product", "basic"])
def test_candidates_of_both_parts_hold_the_best_of_all(tmp_path: Path, fusion: Fusion) -> None:
    index = Index(new_table(tmp_path / "t.lance", cloud(600)).uri, ann="graph", probe_texts=probes)
    snapshot, same = index.snapshot(), 0
    for image, text in zip(cloud(10, 11), probes(), strict=False):
        parts = [Part(image, "image"), Part(text, "text")]
        everything = snapshot.search_parts(parts, 10, fusion=fusion, exact=True)
        found = snapshot.search_parts(parts, 10, fusion=fusion)
        same += len({hit.id for hit in everything} & {hit.id for hit in found})
        scores = {hit.id: hit.score for hit in everything}
        assert all(hit.score == scores[hit.id] for hit in found if hit.id in scores)
    assert same >= 80


def test_the_texts_of_things_are_embedded_once(tmp_path: Path) -> None:
    counts: list[int] = []

    def embed(texts: Any) -> NDArray[np.float32]:
        counts.append(len(texts))
        return unit(np.random.default_rng(len(texts)).standard_normal((len(texts), 24)))

    table = new_table(tmp_path / "t.lance", cloud(60))
    parts = [Part(cloud(1, 3)[0], "image"), Part(probes()[0], "text")]
    first = Index(table.uri, probe_texts=embed).snapshot().search_parts(parts, fusion="basic")
    assert counts[-2:] == [len(SUBJECTS), len(STYLES)]
    before = len(counts)
    assert Index(table.uri, probe_texts=embed).snapshot().search_parts(parts, fusion="basic") == first
    assert len(counts) == before
    (Index(table.uri, probe_texts=embed).folder / "corpora.npz").write_bytes(b"damaged")
    assert Index(table.uri, probe_texts=embed).snapshot().search_parts(parts, fusion="basic") == first
    assert len(counts) == before + 2
    with pytest.raises(ConfigError, match="must be sum, product or basic"):
        Index(table.uri, probe_texts=embed).snapshot().search_parts(parts, fusion="other")  # type: ignore[arg-type]
