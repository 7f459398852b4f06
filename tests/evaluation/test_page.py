"""The page about evaluation names all benchmarks, counts, folders and keys of tasks that the code has."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.dataset_roots import FOLDERS
from mcip.evaluation.own_tasks import MAX_CLASSES
from mcip.evaluation.suites import SUITES, TABLE1, read_suite
from mcip.evaluation.tasks import Task

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


def test_the_keys_of_tasks_are_those_of_the_class() -> None:
    table = PAGE.partition("| key | default | means |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"\| `(\w+)` \| (.+?) \|", table))
    assert list(rows) == [field.name for field in fields(Task)]
    for field in fields(Task):
        if isinstance(field.default, bool) or (isinstance(field.default, str) and field.default):
            assert rows[field.name] == f"`{str(field.default).lower()}`"
        elif field.default is MISSING:
            assert rows[field.name].startswith(("of a benchmark", "`--data`"))


def test_the_tasks_of_the_page_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(PAGE.partition("```yaml\n")[2].partition("```")[0])
    tasks = read_suite(tmp_path / "suite.yaml", "benchmarks")
    assert [task.kind for task in tasks] == ["i2i", "i2i", "i2i", "knn", "zero-shot"]
    assert f"2 to {MAX_CLASSES} labels" in PAGE
