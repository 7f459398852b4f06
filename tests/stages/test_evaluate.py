"""Evaluation: the numbers are those of the metrics, nothing is measured twice, wrong suites are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from mcip import models
from mcip.core.artefacts import read_json
from mcip.core.errors import ConfigError, DataError
from mcip.data import read_table
from mcip.evaluation.measure import class_embeddings
from mcip.evaluation.tasks import own_tasks, read_suite, task_from
from mcip.metrics import cross_modal_recall, retrieval_map
from mcip.stages.evaluate import evaluate
from tests.evaluation import counting
from tests.evaluation.counting import count_measured


def metrics(path: Path) -> dict[str, dict[str, float]]:
    return {task["name"]: task["metrics"] for task in read_json(path)["tasks"]}


def write_suite(path: Path, *tasks: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(list(tasks)))
    return str(path)


def test_the_numbers_are_those_of_the_metrics(val: Path, base: Path, tmp_path: Path) -> None:
    (path,) = evaluate([f"base={base}"], tmp_path, data=str(val))
    table, model = read_table(val), models.load(base)
    transform = model.transform()
    images = model.embed_pixels(torch.stack([transform(table.image(row)) for row in range(len(table))])).numpy()
    labels = np.array(table.labels)
    texts = model.encode([own[0] for own in table.captions])
    found = metrics(path)
    assert list(found) == ["i2i", "zero-shot", "t2i", "i2t"]
    assert found["i2i"]["map"] == pytest.approx(
        retrieval_map(images, images, labels, labels, exclude_self=True), abs=1e-6
    )
    wanted = cross_modal_recall(texts, images, np.arange(15), (1, 5, 10))
    assert found["t2i"] == pytest.approx({f"r{k}": value for k, value in wanted.items()})
    results = read_json(path)
    assert (results["model"], results["fingerprint"]) == ("base", model.fingerprint)
    assert [task["headline"] for task in results["tasks"]] == ["map", "top1", "r5", "r5"]
    for task in results["tasks"]:
        per_query = np.load(tmp_path / task["per_query"])
        value = task["metrics"][task["headline"]]
        assert per_query.shape == (15,)
        assert per_query.mean() == pytest.approx(value)
        assert task["interval"][0] <= value <= task["interval"][1]


def test_a_second_run_measures_nothing(val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = evaluate([f"base={base}"], tmp_path, data=str(val))
    before = path.read_bytes()
    monkeypatch.setattr(counting.module, "measure", None)
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


def test_other_data_or_weights_are_measured_again(
    val: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = count_measured(monkeypatch)
    rows = pq.read_table(val).to_pylist()
    data = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(val)), data)
    (path,) = evaluate([f"m={base}"], tmp_path / "out", data=str(data))
    first = metrics(path)
    for row in rows:
        row["label"] = rows[0]["label"] if row is not rows[-1] else "another"
    data.unlink()
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(val)), data)
    evaluate([f"m={base}"], tmp_path / "out", data=str(data))
    assert len(measured) == 8
    assert metrics(path)["i2i"] != first["i2i"]
    other = models.load(base)
    with torch.no_grad():
        other.clip.visual.proj += 0.1
    evaluate([f"m={models.save(other, tmp_path / 'other')}"], tmp_path / "out", data=str(data))
    assert len(measured) == 12


def test_a_suite_with_knn_and_another_label_column(train: Path, val: Path, base: Path, tmp_path: Path) -> None:
    rows = [*pq.read_table(train).to_pylist(), *pq.read_table(val).to_pylist()]
    data = tmp_path / "both.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(val)), data)
    suite = write_suite(
        tmp_path / "suite.yaml",
        {"name": "shape k-NN", "kind": "knn", "data": str(data), "split": "val", "index_split": "train",
         "label": "shape"},
        {"name": "shape", "kind": "zero-shot", "data": str(data), "split": "val", "label": "shape",
         "templates": ["a {}", "a toy {}"]},
        {"name": "kept", "kind": "i2i", "data": str(data), "split": "val", "exclude_self": False, "transform": "paper"},
    )  # fmt: skip
    (path,) = evaluate([str(base)], tmp_path / "out", suite=suite)
    found = metrics(path)
    assert list(found) == ["shape k-NN", "shape", "kept"]
    assert found["kept"]["r1"] == 1.0
    assert all(0 <= value <= 1 for own in found.values() for value in own.values())


def test_class_embeddings_are_the_mean_over_templates(base: Path) -> None:
    model = models.load(base)
    found = class_embeddings(model, ["red_mug", "star"], ("a {}", "the {}!"))
    wanted = model.encode(["a red mug", "the red mug!"], convert_to_tensor=True).mean(0)
    np.testing.assert_allclose(found[0], (wanted / wanted.norm()).numpy(), atol=1e-5)
    assert found.shape == (2, 16)


def test_own_tasks_are_what_the_table_allows(val: Path, tmp_path: Path) -> None:
    rows = pq.read_table(val).to_pylist()

    def kinds(name: str, **change: Any) -> list[str]:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist([{**row, **change} for row in rows], pq.read_schema(val)), path)
        return [task.kind for task in own_tasks(str(path))]

    assert kinds("labels", captions=[]) == ["i2i", "zero-shot"]
    assert kinds("captions", label=None) == ["t2i", "i2t"]
    assert kinds("one class", captions=[], label="one") == ["i2i"]
    with pytest.raises(DataError, match="neither labels nor captions"):
        kinds("nothing", captions=[], label=None)


GOOD = {"name": "a", "kind": "i2i", "data": "x"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "spilt": "test"}, r"suite, task 1: unknown key 'spilt'; did you mean 'split'\?"),
        ({**GOOD, "zzz": 1}, "unknown key 'zzz'; there are name, kind"),
        ({"name": "a", "kind": "i2i"}, "data missing"),
        ({**GOOD, "kind": "i2x"}, "kind is 'i2x'; it is one of i2i, knn"),
        ({**GOOD, "kind": "knn"}, "k-NN needs index_split"),
        ({**GOOD, "templates": ["a photo"]}, "every template needs a {}"),
    ],
)
def test_wrong_tasks(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_from(entry, "suite, task 1")


def test_wrong_suites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no suite"):
        read_suite(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="two tasks with the name 'a'"):
        read_suite(write_suite(tmp_path / "twice.yaml", GOOD, GOOD))
    (tmp_path / "no list.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match="must be a list of tasks"):
        read_suite(tmp_path / "no list.yaml")
    (tmp_path / "broken.yaml").write_text("- {")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_suite(tmp_path / "broken.yaml")


def test_wrong_models(val: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Two models have the same name"):
        evaluate([f"a={base}", f"a={base}"], tmp_path, data=str(val))
    with pytest.raises(ConfigError, match="no model to evaluate"):
        evaluate([], tmp_path, data=str(val))
    with pytest.raises(ConfigError, match="needs a table: pass --data"):
        evaluate([f"a={base}"], tmp_path)
