"""A table that tests may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcip.retrieval.table import IndexTable

from .cloud import cloud, new_table


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    """600 rows of vectors, without images."""
    return new_table(tmp_path / "t.lance", cloud(600))
