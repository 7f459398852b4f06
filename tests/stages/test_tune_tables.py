"""Tuning on tables that lack something: labels, second images of a class, images that can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mcip import models
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings.encode import embed_images
from mcip.evaluation.validation import Validation
from mcip.stages.tune import tune
from tests.stages.test_tune import QUICK, objective, weights

Change = Callable[[Callable[[int, dict[str, Any]], None]], Path]


@pytest.fixture
def changed(train: Path, tmp_path: Path) -> Change:
    """`train` with each of its rows changed by a function of the row's number and content."""

    def make(change: Callable[[int, dict[str, Any]], None]) -> Path:
        rows = pq.read_table(train).to_pylist()
        for number, row in enumerate(rows):
            change(number, row)
        path = tmp_path / "changed.parquet"
        pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), path)
        return path

    return make


def test_rows_without_a_label_are_left_out_and_listed(changed: Change, base: Path, tmp_path: Path) -> None:
    def unlabel(number: int, row: dict[str, Any]) -> None:
        row["label"] = None if number in (2, 9) else row["label"]

    table = changed(unlabel)
    tune(str(table), tmp_path / "run", str(base), method="gpr-ft", **QUICK)
    ids = read_table(table).ids
    assert read_json(tmp_path / "run" / "manifest.json")["without_label"] == [ids[2], ids[9]]


def test_a_class_with_one_image_is_trained_on(changed: Change, base: Path, tmp_path: Path) -> None:
    tune(
        str(changed(lambda number, row: row.update(label="only") if number == 3 else None)), tmp_path / "run",
        str(base), method="gpr-ft", **QUICK,
    )  # fmt: skip
    assert "only" in read_json(tmp_path / "run" / "classes.json")


def test_corrupt_images_are_listed_up_to_a_share(changed: Change, base: Path, tmp_path: Path) -> None:
    def broken(number: int, row: dict[str, Any]) -> None:
        row["image"] = {"bytes": b"" if number in (1, 20) else row["image"]["bytes"], "path": None}

    table = changed(broken)
    arguments: dict[str, Any] = {**QUICK, "method": "gpr-ft", "steps": 4}
    tune(str(table), tmp_path / "run", str(base), max_unreadable=0.1, **arguments)
    ids = read_table(table).ids
    assert set(read_json(tmp_path / "run" / "manifest.json")["unreadable"]) == {ids[1], ids[20]}
    with pytest.raises(DataError, match=r"2 of the 32 images [\s\S]* or raise max_unreadable"):
        tune(str(table), tmp_path / "strict", str(base), max_unreadable=0.01, **arguments)


@pytest.mark.parametrize(
    ("label", "message"),
    [(lambda row: None, "No row of .* has a label"), (lambda row: "one", "have the label 'one': .* two classes")],
)
def test_too_few_classes(label: Any, message: str, changed: Change, base: Path, tmp_path: Path) -> None:
    table = changed(lambda number, row: row.update(label=label(row)))
    with pytest.raises(DataError, match=message):
        tune(str(table), tmp_path / "run", str(base), method="gpr-ft", **QUICK)
    assert not (tmp_path / "run").exists()


def test_class_means_of_stored_embeddings(train: Path, base: Path, tmp_path: Path) -> None:
    """Those of all images, of which some have no label here, do as those that are embedded in the run."""
    settings: dict[str, Any] = {**QUICK, "method": "gpr-ft", "center_init": "class-means"}
    rows = pq.read_table(train).to_pylist()
    rows[0]["label"] = None
    part = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), part)
    stored = embed_images(read_table(train), models.load(base), tmp_path / "stored", decode="fast")
    alone = tune(str(part), tmp_path / "alone", str(base), **settings)
    shared = tune(str(part), tmp_path / "shared", str(base), embeddings=stored.artefact.folder, **settings)
    for name, tensor in weights(alone).items():
        assert torch.equal(tensor, weights(shared)[name]), name
    assert not (tmp_path / "shared" / "images").exists()

    with pytest.raises(ConfigError, match="embeddings are for class means"):
        tune(str(part), tmp_path / "random", str(base), method="gpr-ft", embeddings=stored.artefact.folder, **QUICK)


def test_a_batch_without_a_readable_image_is_no_step(base: Path, changed: Change) -> None:
    def broken(number: int, row: dict[str, Any]) -> None:
        row["image"] = {"bytes": b"" if number == 5 else row["image"]["bytes"], "path": None}

    tuning = objective(base, changed(broken), None, batch_size=1)
    batches = list(tuning.batches(range(32)))
    assert sorted(len(rows) for _, rows in batches) == [0] + [1] * 31
    empty = next(batch for batch in batches if not batch[1])
    assert tuning.losses(empty, torch.Generator()) == {}
    tuning.after_step()
    assert list(tuning.unreadable) == [read_table(changed(broken)).ids[5]]


def test_validation_needs_captions_or_repeated_labels(changed: Change, base: Path) -> None:
    table = read_table(changed(lambda number, row: row.update(label=None, captions=[])))
    with pytest.raises(DataError, match="nothing to validate on: it needs captions, or classes with two images"):
        Validation(models.load(base), table, "image", torch.device("cpu"))
    with pytest.raises(DataError, match="nothing to validate on: it needs captions"):
        Validation(models.load(base), table, "text", torch.device("cpu"))
