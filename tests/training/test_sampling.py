"""Batches balanced by class and weighted by source."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import ConfigError
from mcip.training.sampling import ClassBalancedOrder, SourceWeightedOrder, parse_weights


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.data(), st.integers(0, 3))
def test_a_batch_holds_p_classes_with_k_rows_each(sizes: list[int], data: st.DataObject, seed: int) -> None:
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    per_batch = data.draw(st.integers(1, len(sizes)))
    count = data.draw(st.integers(1, 5))
    order = ClassBalancedOrder(labels, per_batch * count, per_batch, seed)
    for step in range(6):
        rows = order.batch(step)
        by_class = Counter(labels[row] for row in rows)
        assert set(by_class.values()) == {count}
        assert len(by_class) == per_batch
        for name in by_class:
            times = Counter(row for row in rows if labels[row] == name)
            size = labels.count(name)
            assert len(times) == min(size, count)
            assert max(times.values()) - min(times.values()) <= 1


def test_no_class_comes_twice_in_a_round_and_no_row_in_an_epoch_of_its_class() -> None:
    labels = [name for name in "abcde" for _ in range(6)]
    order = ClassBalancedOrder(labels, 4, 2, seed=3)
    # 5 classes in steps of 2: a round has 2 steps and leaves one class out.
    for turn in range(6):
        classes = [labels[row] for step in (2 * turn, 2 * turn + 1) for row in order.batch(step)]
        assert set(Counter(classes).values()) == {2}
        assert len(set(classes)) == 4
    # 3 rounds of 2 rows are the epoch of a class of 6 rows.
    for epoch in range(3):
        rows = [row for step in range(6 * epoch, 6 * epoch + 6) for row in order.batch(step)]
        assert len(rows) == len(set(rows))


def test_every_class_and_row_comes_in_the_long_run() -> None:
    labels = [name for name, size in (("a", 2), ("b", 5), ("c", 9)) for _ in range(size)]
    order = ClassBalancedOrder(labels, 6, 2, seed=1)
    times = Counter(row for step in range(200) for row in order.batch(step))
    assert len(times) == 16
    by_class = Counter({name: sum(times[row] for row in range(16) if labels[row] == name) for name in "abc"})
    assert max(by_class.values()) < 1.25 * min(by_class.values())


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 30), st.integers(1, 4)), min_size=1),
    st.integers(0, 3),
)
def test_a_batch_holds_the_weights_shares(sources: dict[str, tuple[int, int]], seed: int) -> None:
    names = [name for name, (size, _) in sources.items() for _ in range(size)]
    weights = {name: weight for name, (_, weight) in sources.items()}
    total = sum(weights.values())
    order = SourceWeightedOrder(names, weights, 3 * total, seed)
    assert order.counts == {name: 3 * weight for name, weight in weights.items()}
    for step in range(4):
        assert Counter(names[row] for row in order.batch(step)) == order.counts


def test_the_rows_of_a_source_come_without_replacement() -> None:
    order = SourceWeightedOrder(["a"] * 12 + ["b"] * 4, {"a": 3, "b": 1}, 4, seed=2)
    for epoch in range(3):
        rows = [row for step in range(4 * epoch, 4 * epoch + 4) for row in order.batch(step)]
        assert sorted(rows) == list(range(16))


def test_largest_remainders_fill_the_batch() -> None:
    order = SourceWeightedOrder(["a", "b", "c"], {"a": 1, "b": 1, "c": 1.1}, 128, seed=0)
    assert order.counts == {"a": 41, "b": 41, "c": 46}
    assert SourceWeightedOrder(["a", "b"], {"a": 1, "b": 0}, 8, seed=0).counts == {"a": 8, "b": 0}


def test_orders_are_functions_of_seed_and_step() -> None:
    labels = [name for name in "abcd" for _ in range(5)]
    by_class = [ClassBalancedOrder(labels, 6, 3, 1).batch(step) for step in range(8)]
    by_source = [SourceWeightedOrder(labels, dict.fromkeys("abcd", 1.0), 8, 1).batch(step) for step in range(8)]
    again = ClassBalancedOrder(labels, 6, 3, 1)
    assert [again.batch(step) for step in reversed(range(8))] == by_class[::-1]
    assert ClassBalancedOrder(labels, 6, 3, 2).batch(0) != by_class[0]
    assert SourceWeightedOrder(labels, dict.fromkeys("abcd", 1.0), 8, 2).batch(0) != by_source[0]
    assert len({tuple(rows) for rows in by_class}) == 8


def test_weights_as_the_command_takes_them() -> None:
    assert parse_weights("a=2, b c=0.5,d=e=1") == {"a": 2.0, "b c": 0.5, "d=e": 1.0}
    for wrong in ("a", "a=", "a=x", "a=-1", "a=1,a=2", "", "a=inf"):
        with pytest.raises(ConfigError, match="is no pair such as products=2"):
            parse_weights(wrong)


def test_what_is_refused() -> None:
    labels = ["a", "a", "b"]
    with pytest.raises(ConfigError, match="from 1 to the 2 that there are"):
        ClassBalancedOrder(labels, 6, 3, 0)
    with pytest.raises(ConfigError, match="batch_size 5 is not a multiple of classes_per_batch 2"):
        ClassBalancedOrder(labels, 5, 2, 0)
    with pytest.raises(ConfigError, match="'c' is in one of them only"):
        SourceWeightedOrder(labels, {"a": 1, "b": 1, "c": 1}, 4, 0)
    with pytest.raises(ConfigError, match="'b' is in one of them only"):
        SourceWeightedOrder(labels, {"a": 1}, 4, 0)
    with pytest.raises(ConfigError, match="all 0"):
        SourceWeightedOrder(labels, {"a": 0, "b": 0}, 4, 0)
    with pytest.raises(ConfigError, match="'b' is less than one row of a batch of 4"):
        SourceWeightedOrder(labels, {"a": 99, "b": 1}, 4, 0)
