"""Mean and spread over seeds, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.errors import ConfigError
from mcip.reporting.seeds import mean_and_spread, seeds_table


@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_mean_and_sample_deviation(values: list[float]) -> None:
    spread = mean_and_spread([{"i2i": value} for value in values])["i2i"]
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert spread.runs == len(values)


def test_the_table() -> None:
    rows = {"base": mean_and_spread([{"i2i": 20.0}]), "mcip": mean_and_spread([{"i2i": 30.0}, {"i2i": 34.0}])}
    assert seeds_table(rows).splitlines() == [
        "| model | i2i | runs |",
        "|---|---:|---:|",
        "| base | 20.0 | 1 |",
        "| mcip | 32.0 ± 2.8 | 2 |",
    ]


@pytest.mark.parametrize("runs", [[], [{"i2i": 1.0}, {"t2i": 1.0}]])
def test_runs_of_different_tasks_are_refused(runs: list[dict[str, float]]) -> None:
    with pytest.raises(ConfigError, match="the same tasks"):
        mean_and_spread(runs)
