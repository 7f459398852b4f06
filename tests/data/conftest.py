"""Fixtures of the data tests: a cache of their own, and images on disk."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images import file_bytes, noise_image

MakeImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets, "load_dataset", _no_network)


def _no_network(*args: object, **kwargs: object) -> None:
    raise ConnectionError("tests must not reach the hub")


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    def make(name: str, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_bytes(noise_image(seed)))
        return path

    return make


def write_csv(path: Path, *rows: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def embedded(count: int) -> list[dict[str, Any]]:
    return [{"bytes": file_bytes(noise_image(seed)), "path": f"{seed}.png"} for seed in range(count)]
