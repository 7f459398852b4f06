"""Evaluation: the numbers are those of the metrics, and wrong input is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from mcip import models
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings.compact import Codec, Compact
from mcip.metrics import alignment, cross_modal_recall, modality_gap, retrieval_map
from mcip.stages.evaluate import _by_name, evaluate
from tests.stages.measured import metrics, write_suite, write_table


def test_fast_decoding_is_said_and_kept_apart(val: Path, base: Path, tmp_path: Path) -> None:
    for decode in ("exact", "fast", "exact"):
        (path,) = evaluate([f"base={base}"], tmp_path, data=str(val), decode=decode).paths
        results = read_json(path)
        assert results["decode"] == decode
        assert all(("--decode fast" in " ".join(task["caveats"])) == (decode == "fast") for task in results["tasks"])
    kept = [folder.name for folder in (tmp_path / "embeddings").glob("images-*")]
    assert sorted(name.rpartition("-")[2] for name in kept) == ["exact", "fast"]


def test_the_numbers_are_those_of_the_metrics(val: Path, base: Path, tmp_path: Path) -> None:
    (path,) = evaluate([f"base={base}"], tmp_path, data=str(val)).paths
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
    expected = cross_modal_recall(texts, images, np.arange(15), (1, 5, 10))
    assert found["t2i"] == pytest.approx({f"r{k}": value for k, value in expected.items()})
    results = read_json(path)
    assert (results["model"], results["fingerprint"]) == ("base", model.fingerprint)
    assert [task["headline"] for task in results["tasks"]] == ["map", "top1", "r5", "r5"]
    for task in results["tasks"]:
        per_query = np.load(tmp_path / task["per_query"])
        value = task["metrics"][task["headline"]]
        assert per_query.shape == (15,)
        assert per_query.mean() == pytest.approx(value)
        assert task["interval"][0] <= value <= task["interval"][1]


def test_a_compact_gallery_is_measured_as_an_index_would_search_it(val: Path, base: Path, tmp_path: Path) -> None:
    forms = ["float32", "binary", "dim=8,int8"]
    paths = evaluate([f"base={base}"], tmp_path, data=str(val), embedding=forms).paths
    assert [path.name for path in paths] == ["base.json", "base binary.json", "base dim=8,int8.json"]
    table, model = read_table(val), models.load(base)
    transform = model.transform()
    images = model.embed_pixels(torch.stack([transform(table.image(row)) for row in range(len(table))])).numpy()
    texts, labels = model.encode([own[0] for own in table.captions]), np.array(table.labels)
    for path, form in zip(paths[1:], forms[1:], strict=True):
        codec, of_texts = (Codec.fit(Compact.parse(form), gallery) for gallery in (images, texts))
        queries, gallery, found = codec.project(images), codec.stored(images), metrics(path)
        expected = retrieval_map(queries, gallery, labels, labels, exclude_self=True)
        assert found["i2i"]["map"] == pytest.approx(expected, abs=1e-6)
        recall = cross_modal_recall(codec.project(texts), gallery, np.arange(15), (1, 5, 10))
        assert found["t2i"] == pytest.approx({f"r{k}": value for k, value in recall.items()})
        sides = of_texts.stored(texts), of_texts.project(images)
        recall = cross_modal_recall(*sides, np.arange(15), (1, 5, 10), "image_to_text")
        assert found["i2t"] == pytest.approx({f"r{k}": value for k, value in recall.items()})
        entries = read_json(path)["tasks"]
        assert {entry["embedding"] for entry in entries} == {form}
        assert all(f"with a gallery stored as {form}" in entry["caveats"] for entry in entries)
    assert all("embedding" not in entry for entry in read_json(paths[0])["tasks"])


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "a\\b", "a\nb", "x" * 101, "..", "con", "NUL.a"])
def test_names_that_are_no_file_names(name: str, val: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A model cannot be named"):
        evaluate([f"{name}={base}"], tmp_path / "out", data=str(val))
    assert not (tmp_path / "out").exists()


def test_objects_in_objects_out(val: Path, base: Path, tmp_path: Path) -> None:
    from_paths = evaluate([f"a={base}", f"b={base}"], tmp_path / "paths", data=str(val))
    from_objects = evaluate({"a": models.load(base), "b": base}, tmp_path / "objects", data=read_table(val))
    assert isinstance(from_objects, Sequence)
    assert [result.model for result in from_objects] == ["a", "b"]
    frame = from_objects.to_pandas()
    assert frame.equals(from_paths.to_pandas())
    (row,) = frame.query("model == 'a' and task == 'i2i' and headline").to_dict("records")
    assert row["value"] == from_objects[0].measured["i2i"].metrics["map"]
    assert row["low"] <= row["value"] <= row["high"]
    assert [content["model"] for content in json.loads(from_objects.to_json())] == ["a", "b"]
    assert from_objects[1:].paths == (tmp_path / "objects" / "b.json",)
    assert str(from_objects).splitlines() == [str(tmp_path / "objects" / f"{name}.json") for name in "ab"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(from_objects)
    shown = console.export_text()
    assert f"{100 * row['value']:.1f}" in shown
    assert "modality gap" in shown
    assert f"{100 * row['value']:.1f}" in from_objects._repr_html_()


def test_names_that_differ_in_case_only_are_one_file_elsewhere(base: Path) -> None:
    with pytest.raises(ConfigError, match="Two models have the same name"):
        _by_name([f"a={base}", f"A={base}"])


def test_a_folder_with_an_equals_sign_is_a_model(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "lr=1e-6")
    assert _by_name([str(folder)]) == {"lr=1e-6": str(folder)}
    assert _by_name([f"a={folder}"]) == {"a": str(folder)}


def test_labels_that_all_differ_are_named(val: Path, base: Path, tmp_path: Path) -> None:
    frame = read_table(val).to_pandas().drop(columns="captions")
    frame["label"] = frame["id"]
    with pytest.raises(DataError, match="no two images of the same label and no captions"):
        evaluate([f"a={base}"], tmp_path, data=frame)


def test_models_are_named_by_their_folders(base: Path) -> None:
    names = _by_name([str(base), "ViT-B-16/openai", "hf-hub:a/b", models.load("toyshop")])
    assert list(names) == ["base", "ViT-B-16-openai", "hf-hub-a-b", "toyshop"]


def test_the_joint_space_is_in_the_results(val: Path, base: Path, tmp_path: Path) -> None:
    (results,) = evaluate([f"m={base}"], tmp_path, data=str(val))
    table, model = read_table(val), models.load(base)
    transform = model.transform()
    images = model.embed_pixels(torch.stack([transform(table.image(row)) for row in range(len(table))])).numpy()
    texts = model.encode([captions[0] for captions in table.captions], kind="text")
    gap = modality_gap(images, texts)
    expected = {"modality_gap": gap.distance, "alignment": alignment(images, texts)}
    for task in ("t2i", "i2t"):
        space = dict(results.measured[task].space)
        assert 0 <= space.pop("probe_accuracy") <= 1
        assert space == pytest.approx(expected, abs=1e-4)
    assert results.measured["i2i"].space == {}


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
    (path,) = evaluate([str(base)], tmp_path / "out", suite=suite).paths
    found = metrics(path)
    assert list(found) == ["shape k-NN", "shape", "kept"]
    assert found["kept"]["r1"] == 1.0
    assert all(0 <= value <= 1 for own in found.values() for value in own.values())


def test_votes_of_another_table(train: Path, val: Path, base: Path, tmp_path: Path) -> None:
    entry = {"kind": "knn", "label": "shape"}
    rows = [*pq.read_table(train).to_pylist(), *pq.read_table(val).to_pylist()]
    both = write_table(tmp_path / "both.parquet", val, rows)
    suite = write_suite(
        tmp_path / "suite.yaml",
        {**entry, "name": "two tables", "data": str(val), "index_data": str(train)},
        {**entry, "name": "one table", "data": both, "split": "val", "index_split": "train"},
    )
    (results,) = evaluate([f"m={base}"], tmp_path / "out", suite=suite)
    assert results.measured["two tables"].metrics == results.measured["one table"].metrics
    (own,) = evaluate([f"m={base}"], tmp_path / "own", data=str(val), index_data=read_table(train))
    assert own.measured["knn"].metrics == {"top1": 0.0, "top5": 0.0}  # no product is in both


def test_zero_shot_that_is_left_out_is_named(val: Path, base: Path, tmp_path: Path) -> None:
    rows = pq.read_table(val).to_pylist()
    for number, row in enumerate(rows):
        row["label"] = str(number // 2)
    data = write_table(tmp_path / "numbers.parquet", val, rows)
    (results,) = evaluate([f"m={base}"], tmp_path / "out", data=data)
    assert list(results.measured) == ["i2i", "t2i", "i2t"]
    assert results.missing[0][0] == "zero-shot"
    assert "name products rather than classes" in results.missing[0][1]


def test_wrong_models(val: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Two models have the same name"):
        evaluate([f"a={base}", f"a={base}"], tmp_path, data=str(val))
    with pytest.raises(ConfigError, match="no model to evaluate"):
        evaluate([], tmp_path, data=str(val))
    with pytest.raises(ConfigError, match="needs a table: pass --data"):
        evaluate([f"a={base}"], tmp_path)
