"""The page about the benchmarks names all of them, with the counts and folders that the code checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.dataset_roots import FOLDERS
from mcip.evaluation.suites import SUITES, TABLE1

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_explained(name: str) -> None:
    assert f"`{name}`" in PAGE
    for count in BENCHMARKS[name].counts.values():
        for official in np.ravel(count):
            assert f"{official:,}" in PAGE, (name, official)


def test_every_data_set_suite_and_column_is_named() -> None:
    for names in FOLDERS.values():
        assert any(name in PAGE.lower() for name in names), names
    for suite in SUITES:
        assert f"`{suite}`" in PAGE
    for column, name in TABLE1.items():
        assert any(column in line and f"`{name}`" in line for line in PAGE.splitlines()), column
