"""Filters of a pool: what stays and what goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcip.core.errors import ConfigError, DataError
from mcip.data.pool_filters import PoolFilters, has_name
from mcip.stages.mine import mine

CAPTIONS = [
    "a red mug on a table", "ein roter Becher auf dem Tisch", "A red mug, on a TABLE!", "portrait of Ada Lovelace",
    "mug", "a tram in San Francisco", "a red mug on a table 2", "日本の庭", "the mayor, Mr. Smith, at a party",
]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ("english", [0, 2, 3, 5, 6, 8]),
        ("words=2-5", [3, 5]),
        ("names", [0, 1, 2, 4, 5, 6, 7]),
        ("duplicates", [0, 1, 3, 4, 5, 7, 8]),
        ("english, names,duplicates,words=2-40", [0, 5]),
    ],
)
def test_what_stays(filters: str, rows: list[int]) -> None:
    assert PoolFilters.parse(filters).rows(CAPTIONS).tolist() == rows
    assert PoolFilters.parse(filters).rows(CAPTIONS, slice_rows=2).tolist() == rows


@pytest.mark.parametrize(
    "caption", ["a photo of Grace M. Hopper", "actor Maria de Souza on stage", "President Lincoln", "with Sir Isaac"]
)
def test_names(caption: str) -> None:
    assert has_name(caption)


@pytest.mark.parametrize("caption", ["Red mug on a table", "A View Of The Old Town Hall", "a street in New York City"])
def test_no_names(caption: str) -> None:
    assert not has_name(caption)


@pytest.mark.parametrize(("text", "message"), [("german", "no filter 'german'"), ("words=9-3", "leaves no caption")])
def test_unknown_filters_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PoolFilters.parse(text)


def test_mining_uses_what_stays(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    mined = mine(str(train), str(pool), tmp_path / "mined", str(base), k=5, pool_filters="words=6-9")
    assert all(len(caption.split()) >= 6 for caption in mined.captions)
    assert mined.artefact.manifest["filtered"] > 0
    with pytest.raises(DataError, match="None of the 52 captions of the pool passes"):
        mine(str(train), str(pool), tmp_path / "none", str(base), pool_filters="words=50-60")
