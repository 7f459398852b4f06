"""Subsamples are always the same ones, and keep what their queries need."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Classification, CrossModal, Retrieval, TextRetrieval, ZeroShot
from mcip.evaluation.subsample import subsample
from tests.evaluation.layouts import read


@pytest.mark.parametrize("name", BENCHMARKS)
def test_subsamples_are_seeded(benchmarks: Path, name: str) -> None:
    data = read(benchmarks, name)
    one, same = subsample(data, 6), subsample(data, 6)
    assert one.fingerprint == same.fingerprint
    assert all(one.counts[what] <= count for what, count in data.counts.items())
    assert subsample(data, 10**6).counts == data.counts


def test_subsamples_keep_whole_classes(benchmarks: Path) -> None:
    data = read(benchmarks, "gpr1200")
    part = subsample(data, 8)
    assert isinstance(part, Retrieval)
    assert part.counts == {"queries": 8, "classes": 2}
    assert all(part.queries.labels.count(label) == 4 for label in part.queries.labels)
    drawn = {tuple(subsample(data, 8, seed).queries.labels) for seed in range(8)}  # type: ignore[union-attr]
    assert len(drawn) > 1


def test_subsamples_of_queries_keep_what_they_name(benchmarks: Path) -> None:
    data = read(benchmarks, "roxford-1m")
    part = subsample(data, 9)
    assert isinstance(part, Retrieval)
    whole, left = ([name for table in one.gallery for name in table.ids] for one in (data, part))
    assert len(left) == 9
    truths = dict(zip(data.queries.ids, data.truth, strict=True))
    for name, truth in zip(part.queries.ids, part.truth or (), strict=True):
        for kind in ("easy", "hard", "junk"):
            assert [left[row] for row in truth[kind]] == [whole[row] for row in truths[name][kind]]


def test_subsamples_of_the_other_kinds(benchmarks: Path) -> None:
    votes = subsample(read(benchmarks, "knn-imagenet"), 4)
    assert isinstance(votes, Classification)
    assert set(votes.train.labels) == set(votes.test.labels)
    assert votes.counts == {"train": 6, "test": 4, "classes": 2}
    shown = subsample(read(benchmarks, "zero-shot-imagenet"), 3)
    assert isinstance(shown, ZeroShot)
    assert (len(shown.images), len(shown.names)) == (3, 1000)
    captioned = subsample(read(benchmarks, "coco"), 2)
    assert isinstance(captioned, CrossModal)
    assert len(captioned.images) == 2
    texts = subsample(read(benchmarks, "ilias-t2i"), 4)
    assert isinstance(texts, TextRetrieval)
    assert len(texts.texts) == 2
