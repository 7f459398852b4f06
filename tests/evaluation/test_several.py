"""Several models and tasks: what one image tower has embedded of a table is not embedded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcip import models
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings import encode
from mcip.embeddings.store import Embeddings
from mcip.evaluation.several import measure_models
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import Task


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each forward pass had."""
    counts, encode_pixels = [], encode.encode_pixels

    def counting(model: models.Model, pixels: torch.Tensor, *arguments: Any) -> Any:
        counts.append(len(pixels))
        return encode_pixels(model, pixels, *arguments)

    monkeypatch.setattr(encode, "encode_pixels", counting)
    return counts


def realigned(base: Path) -> models.Model:
    """The base with another text tower."""
    model = models.load(base)
    with torch.no_grad():
        for weights in model.text_parameters():
            weights.mul_(1.1)
    return model


def test_the_same_image_tower_embeds_once(base: Path, val: Path, tmp_path: Path, embedded: list[int]) -> None:
    tasks = [Task("i2i", "i2i", str(val)), Task("t2i", "t2i", str(val))]
    other = models.load(base)
    with torch.no_grad():
        other.image_parameters()[0].mul_(1.1)
    named: dict[str, str | models.Model] = {"base": str(base), "realigned": realigned(base), "other": other}
    results = [read_json(path)["tasks"] for path in measure_models(named, tasks, tmp_path / "out")]
    assert sum(embedded) == 2 * len(read_table(val))
    assert results[0][0]["metrics"] == results[1][0]["metrics"] != results[2][0]["metrics"]
    assert results[0][1]["metrics"] != results[1][1]["metrics"]
    [alone] = measure_models({"realigned": realigned(base)}, tasks, tmp_path / "alone")
    assert [task["metrics"] for task in results[1]] == [task["metrics"] for task in read_json(alone)["tasks"]]


def test_the_matrix_and_the_preprocessing_are_of_the_tower(base: Path) -> None:
    model = models.load(base)
    assert model.embeds_images_as() == realigned(base).embeds_images_as()
    before = model.embeds_images_as()
    model.preprocess_cfg = {**model.preprocess_cfg, "mean": [0.0, 0.0, 0.0]}
    assert model.embeds_images_as() != before


def test_splits_are_taken_from_the_whole(base: Path, val: Path, tmp_path: Path, embedded: list[int]) -> None:
    table = read_table(val)
    half = ["train" if row % 2 else "test" for row in range(len(table))]
    frame = table.to_pandas().assign(split=half)
    tables = {"halves": read_table(frame)}
    tasks = [
        Task("k-NN", "knn", "halves", split="test", index_split="train"),
        Task("i2i", "i2i", "halves"),
    ]
    (path,) = measure_models({"base": str(base)}, tasks, tmp_path / "out", sources=Sources(tables))
    assert sum(embedded) == len(table)
    (part,) = measure_models({"base": str(base)}, tasks[:1], tmp_path / "part", sources=Sources(tables))
    assert read_json(path)["tasks"][0]["metrics"] == read_json(part)["tasks"][0]["metrics"]
    folders = sorted((tmp_path / "part" / "embeddings").glob("images-*"))
    assert len(folders) == 2
    for folder in folders:
        mine, other = (Embeddings(where) for where in (folder, tmp_path / "out" / "embeddings" / folder.name))
        assert list(mine.ids) == list(other.ids)
        np.testing.assert_allclose(mine.array(), other.array(), atol=1e-6)
