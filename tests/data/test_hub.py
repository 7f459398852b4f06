"""Data sets of the hub."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.data.readers import hub_rows
from tests.images import noise_image

from .conftest import embedded, write_parquet

LOAD_DATASET = datasets.load_dataset  # the tests put something else in its place


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    parts = {
        split: datasets.Dataset.from_dict({"image": embedded(len(labels)), "label": labels}, features=features)
        for split, labels in {"train": [0, 1], "validation": [1]}.items()
    }
    calls: list[tuple[str, str | None]] = []

    def load(name: str, configuration: str | None) -> datasets.DatasetDict:
        calls.append((name, configuration))
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load)
    table = read_table("someone/pets:small")
    assert calls == [("someone/pets", "small")]
    assert table.labels == ["cat", "dog", "dog"]
    assert table.ids == ["train/0", "train/1", "val/0"]
    assert table.image(1).tobytes() == noise_image(1).tobytes()


def test_hub_rows_come_through_load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named as a data set of the hub is, and laid out as one, is loaded in its stead."""
    for name, count in (("train-00000-of-00001", 2), ("validation-00000-of-00001", 1)):
        write_parquet(tmp_path / "someone" / "pets" / "data" / f"{name}.parquet", {"image": embedded(count)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", LOAD_DATASET)
    assert hub_rows("hub:someone/pets").column_names == hub_rows("someone/pets").column_names
    parts = hub_rows("someone/pets")
    assert {str(split): len(part) for split, part in parts.items()} == {"train": 2, "validation": 1}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: parts)
    monkeypatch.chdir(tmp_path / "someone")
    table = read_table("someone/pets")
    assert table.ids == ["train/0", "train/1", "val/0"]
    assert table.image(1).tobytes() == noise_image(1).tobytes()


def test_hub_that_cannot_be_reached() -> None:
    with pytest.raises(DataError, match=r"someone/pets is no file or folder here.*reach the hub\. Check the name"):
        read_table("someone/pets")
