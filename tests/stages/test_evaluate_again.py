"""Evaluation into a folder with results: what is there is kept, and what has changed is measured again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mcip import models
from mcip.core.errors import ArtefactError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.stages.evaluate import evaluate
from tests.evaluation.counting import count_measured
from tests.stages.measured import metrics, write_suite, write_table


def test_a_second_run_measures_nothing(val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = evaluate([f"base={base}"], tmp_path, data=str(val)).paths
    before = path.read_bytes()
    monkeypatch.setattr("mcip.evaluation.several.measure", None)
    evaluate([f"base={base}"], tmp_path, data=str(val))
    assert path.read_bytes() == before


def test_what_has_been_measured_outlives_an_interruption(
    val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measured(monkeypatch, interrupt_at=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate([f"base={base}"], tmp_path, data=str(val))
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate([f"base={base}", f"other={base}"], tmp_path, data=str(val))
    assert measured == ["t2i", "i2t"]
    assert list(metrics(tmp_path / "base.json")) == ["i2i", "zero-shot", "t2i", "i2t"]


def saved(base: Path, folder: Path, change: float) -> Path:
    """The model `base` with other weights."""
    model = models.load(base)
    with torch.no_grad():
        model.clip.visual.proj += change
    return models.save(model, folder)


def test_what_was_replaced_at_its_place_is_measured_again(
    val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measured(monkeypatch)
    rows = pq.read_table(val).to_pylist()
    data, model = write_table(tmp_path / "data.parquet", val, rows), saved(base, tmp_path / "model", 0.1)
    (path,) = evaluate([f"m={model}"], tmp_path / "out", data=data).paths
    first = metrics(path)
    for row in rows:
        row["label"] = rows[0]["label"] if row is not rows[-1] else "another"
    write_table(tmp_path / "data.parquet", val, rows)
    evaluate([f"m={model}"], tmp_path / "out", data=data)
    assert len(measured) == 8
    before = read_json(path)
    assert metrics(path)["i2i"] != first["i2i"]
    saved(base, tmp_path / "model", 3.0)
    evaluate([f"m={model}"], tmp_path / "out", data=data)
    assert len(measured) == 12
    after = read_json(path)
    assert after["fingerprint"] != before["fingerprint"]
    assert after["tasks"][2]["space"] != before["tasks"][2]["space"]


def test_images_replaced_by_others_of_the_same_size_are_measured_again(base: Path, tmp_path: Path) -> None:
    colours, grounds = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)), ((9, 9, 9), (90, 90, 90))

    def write(order: list[int]) -> None:
        for number, place in enumerate(order):
            image = Image.new("RGB", (32, 32), grounds[place % 2])
            image.paste(colours[place // 2], (4, 4, 28, 28))
            path = tmp_path / "data" / f"class {number // 2}" / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)

    write([0, 2, 1, 4, 3, 6, 5, 7])
    sizes = {path.stat().st_size for path in (tmp_path / "data").rglob("*.bmp")}
    first = evaluate({"m": base}, tmp_path / "out", data=tmp_path / "data")[0]
    write(list(range(8)))
    assert {path.stat().st_size for path in (tmp_path / "data").rglob("*.bmp")} == sizes
    again = evaluate({"m": base}, tmp_path / "out", data=tmp_path / "data")[0]
    afresh = evaluate({"m": base}, tmp_path / "afresh", data=tmp_path / "data")[0]
    assert again.measured["i2i"].metrics == afresh.measured["i2i"].metrics
    assert again.measured["i2i"].metrics != first.measured["i2i"].metrics


def test_results_of_something_else_are_not_replaced(val: Path, train: Path, base: Path, tmp_path: Path) -> None:
    (path,) = evaluate([f"m={base}"], tmp_path, data=str(val)).paths
    before = path.read_bytes()
    with pytest.raises(ArtefactError, match=r"m\.json holds results of .*val\.parquet with other content"):
        evaluate([f"m={base}"], tmp_path, data=str(train))
    with pytest.raises(ArtefactError, match=r"holds results of .*val\.parquet with other content"):
        evaluate([f"m={base}"], tmp_path, data=read_table(train))
    other = saved(base, tmp_path / "other", 0.1)
    with pytest.raises(ArtefactError, match=r"holds results of the model .*base"):
        evaluate([f"m={other}"], tmp_path, data=str(val))
    assert path.read_bytes() == before
    suite = write_suite(tmp_path / "s.yaml", {"name": "i2i", "kind": "i2i", "data": str(val)})
    (of_suite,) = evaluate([f"m={base}"], tmp_path, suite=suite).paths
    with pytest.raises(ArtefactError, match="holds results of the model m, which would be replaced"):
        evaluate([f"{of_suite.stem}={base}"], tmp_path, data=str(val))
    path.write_text("[]")
    with pytest.raises(ArtefactError, match="is not a results file"):
        evaluate([f"m={base}"], tmp_path, data=str(val))


def test_the_same_data_elsewhere_are_the_same(
    val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measured(monkeypatch)
    evaluate([f"m={base}"], tmp_path / "out", data=str(val))
    moved = str(shutil.copy(val, tmp_path / "moved.parquet"))
    (results,) = evaluate([f"m={base}"], tmp_path / "out", data=moved)
    assert len(measured) == 4
    assert results.measured["i2i"].task.data == moved
