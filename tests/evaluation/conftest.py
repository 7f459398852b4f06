"""All benchmarks in one folder, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation import layouts


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.everything(tmp_path_factory.mktemp("benchmarks"))
