"""Collapsed results: each group once, whatever is requested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mcip.core.errors import ConfigError
from mcip.retrieval.ann.exact import Ranked, products, ranking
from mcip.retrieval.collapse import collapsed
from mcip.retrieval.index import Index
from mcip.stages.search import search

Run = Callable[..., Index]


def bursts(images: int, groups: int, spread: float, seed: int) -> NDArray[np.float32]:
    """Unit vectors around some directions."""
    generator = np.random.default_rng(seed)
    middles = generator.standard_normal((groups, 16))
    vectors = middles[generator.integers(groups, size=images)] + spread * generator.standard_normal((images, 16))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def rank_by(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> Callable[[int], Ranked]:
    scores = products(vectors, query)
    order = ranking(scores, np.arange(len(vectors)))
    return lambda count: (scores[order[:count]], order[:count])


def naive(unit: NDArray[np.float32], threshold: float) -> list[tuple[int, list[int]]]:
    """Groups of a whole ranking, where all of it is one window."""
    free, groups = list(range(len(unit))), []
    while free:
        first, *rest = free
        others = [at for at in rest if float(products(unit[at : at + 1], unit[first])[0]) >= threshold - 1e-6]
        groups.append((first, others))
        free = [at for at in rest if at not in others]
    return groups


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 40), st.floats(0.0, 0.4), st.integers(0, 99), st.sampled_from([0.5, 0.9, 1.0])
)
def test_groups_are_those_of_a_walk_down_the_ranking(
    images: int, groups: int, spread: float, seed: int, threshold: float
) -> None:
    vectors = bursts(images, groups, spread, seed)
    rank = rank_by(vectors, vectors[0])
    (_, slots), found = collapsed(rank, lambda slots: vectors[slots], threshold, images)
    assert [(group.rank, group.others.tolist()) for group in found] == naive(vectors[slots], threshold)


def test_groups_do_not_depend_on_how_many_are_requested() -> None:
    vectors = bursts(6000, 1500, 0.05, 5)
    rank = rank_by(vectors, vectors[7])
    asked: list[int] = []

    def counted(count: int) -> Ranked:
        asked.append(count)
        return rank(count)

    every = collapsed(counted, lambda slots: vectors[slots], 0.97, 1200)[1]
    assert asked[0] == 512
    assert asked[-1] > 2048
    assert len(every) == 1200
    for count in (1, 10, 100, 500):
        (_, slots), found = collapsed(rank, lambda slots: vectors[slots], 0.97, count)
        assert len(found) == count
        for group, same in zip(found, every, strict=False):
            assert (group.rank, group.others.tolist()) == (same.rank, same.others.tolist())
        firsts = vectors[slots[[group.rank for group in found]]]
        assert np.max(np.triu(firsts @ firsts.T, 1)) < 0.97


def test_fewer_groups_than_requested_and_nothing_at_all() -> None:
    vectors = bursts(700, 3, 0.001, 0)
    assert len(collapsed(rank_by(vectors, vectors[0]), lambda slots: vectors[slots], 0.9, 10)[1]) == 3
    assert collapsed(rank_by(vectors[:0], vectors[0]), lambda slots: vectors[slots], 0.9, 10)[1] == []
    for threshold in (-1.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="must be a cosine"):
            collapsed(rank_by(vectors, vectors[0]), lambda slots: vectors[slots], threshold, 1)


def test_a_burst_in_an_index(run_index: Run, own_album: Path) -> None:
    first = own_album / "toys-00000-0.jpg"
    for quality in (60, 70, 80):
        Image.open(first).save(own_album / "a" / f"copy-{quality}.jpg", quality=quality)
    index = run_index()
    copies = {first.name, *(f"a/copy-{quality}.jpg" for quality in (60, 70, 80))}
    threshold = min(float(index.vector(one) @ index.vector(other)) for one in copies for other in copies) - 1e-3
    plain = index.search(image=f"id:{first.name}", k=39)
    results = index.search(image=f"id:{first.name}", k=8, collapse=threshold)
    assert copies <= {results[0].id, *(hit.id for hit in results[0].others)}
    assert len(results) == 8
    shown = [hit.id for hit in results]
    members = [hit.id for result in results for hit in (result, *result.others)]
    assert len(set(members)) == len(members)
    order = [hit.id for hit in plain]
    assert sorted(shown, key=order.index) == shown
    assert [hit.score for hit in results[0].others] == sorted((hit.score for hit in results[0].others), reverse=True)
    assert index.search(image=f"id:{first.name}", k=3, offset=5, collapse=threshold).hits == results[5:]
    within = index.search(image=f"id:{first.name}", k=8, collapse=threshold, where="folder = '.'")
    assert (within[0].id, copies & {hit.id for hit in within[0].others}) == (first.name, set())
    browsed = index.browse(k=40, collapse=threshold)
    assert len(browsed) < 39 == sum(1 + len(hit.others) for hit in browsed)
    with pytest.raises(ConfigError, match="leave one of them out"):
        index.search(text="x", collapse=0.9, rerank=lambda hits: [1.0] * len(hits))


def test_the_command_shows_how_many(indexed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    results = search(str(indexed), "a toy", k=5, collapse=0.5, device="cpu")
    assert not isinstance(results, str)
    Console().print(results)
    assert f"+{len(results[0].others)}" in capsys.readouterr().out
    assert results.to_pandas()["others"].tolist() == [len(hit.others) for hit in results]
    assert '"others": [' in str(search(str(indexed), "a toy", k=5, collapse=0.5, output="json", device="cpu"))
