"""Splits by class: what is held out is never trained on, whatever the seed; near-duplicates stay together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import DataError
from mcip.data.class_splits import SPLITS, Split, limit_validation, near_duplicates, split_as_given, split_by_class


def codes_of(classes: int, images: int) -> np.ndarray:
    return np.repeat(np.arange(classes), images)


@given(classes=st.integers(20, 60), images=st.integers(2, 4), seed=st.integers(0, 99))
def test_classes_are_in_one_split_each_and_rows_in_exactly_one(classes: int, images: int, seed: int) -> None:
    codes = codes_of(classes, images)
    split = split_by_class(codes, [], seed)
    assert sorted(np.concatenate([split.rows[name] for name in SPLITS]).tolist()) == list(range(len(codes)))
    parts = [set(codes[split.rows[name]].tolist()) for name in SPLITS]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    expected = max(2, round(0.15 * classes))
    assert [len(part) for part in parts] == [classes - 2 * expected, expected, expected]
    again = split_by_class(codes, [], seed)
    assert all(np.array_equal(split.rows[name], again.rows[name]) for name in SPLITS)


@given(pairs=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=6), seed=st.integers(0, 99))
def test_classes_with_near_duplicates_stay_in_one_split(pairs: list[tuple[int, int]], seed: int) -> None:
    codes = codes_of(30, 2)
    split = split_by_class(codes, pairs, seed)
    split_of = {row: name for name in SPLITS for row in split.rows[name].tolist()}
    assert all(split_of[one] == split_of[other] for one, other in pairs)


def test_classes_of_one_image_are_trained_on() -> None:
    codes = np.concatenate([codes_of(20, 3), [20, 21, 22]])
    assert {60, 61, 62} <= set(split_by_class(codes, [], 1).rows["train"].tolist())


@pytest.mark.parametrize(("classes", "images"), [(5, 20), (10, 2), (50, 1)])
def test_too_little_is_refused_with_what_would_be_enough(classes: int, images: int) -> None:
    with pytest.raises(DataError, match="40 images and 8 such classes are enough to run"):
        split_by_class(codes_of(classes, images), [], 0)


def test_one_group_of_duplicates_is_refused() -> None:
    with pytest.raises(DataError, match="Near-duplicates join 20 of the 20 classes"):
        split_by_class(codes_of(20, 3), [(row, row + 3) for row in range(0, 57, 3)], 0)


def test_given_splits_lose_the_duplicates_of_what_is_measured() -> None:
    splits = ["train"] * 6 + ["val"] * 4 + ["test"] * 4
    codes = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 0])
    split = split_as_given(splits, codes, [(0, 10), (6, 11), (1, 2)])
    assert split.rows["train"].tolist() == [1, 2, 3, 4, 5]
    assert split.rows["val"].tolist() == [7, 8, 9]
    assert split.rows["test"].tolist() == [10, 11, 12, 13]
    assert "2 images are left out" in split.rule
    assert "50 % of the test classes are trained on" in split.rule


def test_validation_is_taken_from_training_where_there_is_none() -> None:
    codes = codes_of(12, 2)
    split = split_as_given(["train"] * 20 + ["test"] * 4, codes, [])
    assert sorted(set(codes[split.rows["val"]].tolist())) == [4, 9]
    assert not set(codes[split.rows["val"]]) & set(codes[split.rows["train"]])


def test_a_split_that_measures_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="'test' has 2 images of 2 classes: it needs two classes, and one of them two"):
        split_as_given(["train"] * 4 + ["val"] * 4 + ["test"] * 2, np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5]), [])


def test_near_duplicates_are_the_pairs_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1200, 24)).astype(np.float32)
    for one, other in ((3, 1100), (5, 6), (10, 700)):
        vectors[other] = vectors[one] + 0.01 * rng.standard_normal(24)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    classes = [row // 4 for row in range(1200)]
    expected = [
        (one, other) for one in range(1200) for other in np.flatnonzero(vectors @ vectors[one] >= 0.97).tolist()
        if one < other and classes[one] != classes[other]
    ]  # fmt: skip
    assert sorted(near_duplicates(vectors, classes)) == expected == [(3, 1100), (10, 700)]


def test_a_model_that_finds_all_images_alike_does_not_join_all_classes() -> None:
    rng = np.random.default_rng(0)
    vectors = np.ones((300, 16), np.float32) + 0.01 * rng.standard_normal((300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(near_duplicates(vectors, np.arange(300) // 3)) < 20


def test_validation_is_limited_by_whole_classes() -> None:
    codes = np.repeat(np.arange(40), [1 if number % 4 == 0 else 5 for number in range(40)])
    rows = np.arange(len(codes))
    split = Split({"train": rows[codes < 15], "val": rows[codes >= 15], "test": rows[:0]}, "A rule.")
    assert limit_validation(split, codes, 1000, 3) is split
    limited = limit_validation(split, codes, 50, 3)
    kept = limited.rows["val"]
    assert 45 < len(kept) <= 50
    for code in np.unique(codes[kept]):
        assert np.isin(np.flatnonzero(codes == code), kept).all(), "whole classes"
        assert (codes == code).sum() == 5, "classes of one image come last"
    assert (limited.rows["train"] == split.rows["train"]).all()
    assert limited.rule.startswith(f"A rule. Of {len(split.rows['val'])} validation images {len(kept)}")
    assert not np.array_equal(kept, limit_validation(split, codes, 50, 4).rows["val"])
    assert len(np.unique(codes[limit_validation(split, codes, 1, 3).rows["val"]])) == 2
