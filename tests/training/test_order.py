"""The order of the rows, and the schedule of the learning rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import ConfigError
from mcip.training import EpochOrder
from mcip.training.settings import learning_rate_factor


def test_the_schedule_in_closed_form() -> None:
    assert [learning_rate_factor(step, 10, 4, 0.1) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate_factor(4, 10, 4, 0.1) == 1.0
    assert learning_rate_factor(7, 10, 4, 0.1) == pytest.approx(0.55)
    assert learning_rate_factor(10, 10, 4, 0.1) == pytest.approx(0.1)
    assert learning_rate_factor(0, 1, 0, 0.0) == 1.0


@given(st.integers(1, 200), st.integers(0, 50), st.floats(0, 1))
def test_the_schedule_rises_then_falls(steps: int, warmup: int, ratio: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup, ratio) for step in range(steps)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors[: warmup + 1])
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert all(factor >= ratio - 1e-12 for factor in factors[warmup:])


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_visits_each_row_at_most_once(rows: int, batch_size: int, seed: int) -> None:
    order = EpochOrder(rows, batch_size, seed)
    assert order.batch_size == min(batch_size, rows)
    steps = order.steps_per_epoch
    assert steps == rows // order.batch_size
    for epoch in range(2):
        visited = [row for step in range(steps) for row in order.batch(epoch * steps + step)]
        assert len(visited) == steps * order.batch_size == len(set(visited))
        assert set(visited) <= set(range(rows))


def test_the_order_is_a_function_of_seed_and_step() -> None:
    expected = [EpochOrder(30, 7, 1).batch(step) for step in range(9)]
    backwards = EpochOrder(30, 7, 1)
    assert [backwards.batch(step) for step in reversed(range(9))] == expected[::-1]
    assert expected[:4] != expected[4:8]
    assert EpochOrder(30, 7, 2).batch(0) != expected[0]
    with pytest.raises(ConfigError, match="batch_size is 0"):
        EpochOrder(30, 0, 1)
