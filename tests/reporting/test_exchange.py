"""Results as CLIP_benchmark's CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from mcip.evaluation.tasks import Kind, Task
from mcip.reporting.exchange import COLUMNS, _by_number, clip_benchmark_csv, json_lines
from mcip.reporting.results import Measured, Results
from mcip.stages.evaluate import evaluate


def measured(benchmark: str | None, kind: Kind, data: str = "x", **metrics: float) -> Measured:
    task = Task(
        f"{benchmark or data} {kind}", kind, data, benchmark=benchmark, index_split="train" if kind == "knn" else None
    )
    return Measured(task, "hash", next(iter(metrics)), metrics, interval=(0.1, 0.9))


@pytest.fixture
def results() -> list[Results]:
    parts = [
        measured("flickr30k", "t2i", r5=0.8, r1=0.6), measured("flickr30k-i2t", "i2t", r5=0.9, r1=0.7),
        measured("zero-shot-imagenet", "zero-shot", top1=0.5, top5=0.75), measured("cub", "i2i", r1=0.4, map=0.2),
        measured("knn-aircraft", "knn", top1=0.3), measured(None, "i2i", data="/a/shop.parquet", map=math.nan, r1=0.5),
    ]  # fmt: skip
    one = Results("mcip", "runs/mcip/model", "f" * 64, "own", (), {part.task.name: part for part in parts})
    return [one, replace(one, model="base", source="ViT-L-14-336/openai")]


def rows(results: list[Results]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(clip_benchmark_csv(results))))


def test_our_own_columns_are_in_the_order_of_their_numbers() -> None:
    columns = ["recall@10", "recall@1", "recall", "acc5", "recall@5"]
    assert sorted(columns, key=_by_number) == ["acc5", "recall", "recall@1", "recall@5", "recall@10"]


def test_the_csv_has_the_columns_of_clip_benchmark(results: list[Results]) -> None:
    assert clip_benchmark_csv(results).splitlines()[0].split(",")[: len(COLUMNS)] == list(COLUMNS)
    found = {(row["model"], row["dataset"], row["task"]): row for row in rows(results)}
    assert len(found) == 10
    flickr = found["ViT-L-14-336", "flickr30k", "zeroshot_retrieval"]
    assert (flickr["pretrained"], flickr["model_fullname"]) == ("openai", "ViT-L-14-336 openai")
    assert (flickr["image_retrieval_recall@5"], flickr["text_retrieval_recall@5"]) == ("0.8", "0.9")
    imagenet = found["mcip", "imagenet1k", "zeroshot_classification"]
    assert (imagenet["pretrained"], imagenet["acc1"], imagenet["acc5"]) == ("runs/mcip/model", "0.5", "0.75")
    assert found["mcip", "cub", "image_to_image_retrieval"]["image_to_image_recall@1"] == "0.4"
    assert found["mcip", "cub", "image_to_image_retrieval"]["mean_average_precision"] == "0.2"
    assert found["mcip", "fgvc_aircraft", "knn_classification"]["acc1"] == "0.3"
    assert found["mcip", "shop", "image_to_image_retrieval"]["mean_average_precision"] == ""


def test_json_lines_are_read_by_datasets(results: list[Results], tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json_lines(results))
    table = datasets.load_dataset("json", data_files=str(tmp_path / "results.jsonl"), split="train")
    assert len(table) == 2 * 11
    row: dict[str, Any] = table[0]
    assert (row["model"], row["metric"], row["value"], row["headline"]) == ("mcip", "r5", 0.8, True)
    assert (row["low"], row["high"], row["benchmark"]) == (0.1, 0.9, "flickr30k")
    assert table[1]["low"] is None
    assert [row["value"] for row in table if row["benchmark"] is None and row["metric"] == "map"] == [None, None]


def test_evaluate_writes_both(base: Path, val: Path, tmp_path: Path) -> None:
    files: dict[str, Any] = {"export_csv": tmp_path / "a" / "all.csv", "export_jsonl": tmp_path / "all.jsonl"}
    evaluation = evaluate([f"base={base}"], tmp_path / "out", data=str(val), split="val", **files)
    table = evaluation.to_pandas()
    lines = [json.loads(line) for line in files["export_jsonl"].read_text().splitlines()]
    assert [line["value"] for line in lines] == pytest.approx(table["value"].tolist(), nan_ok=True)
    by_task = {row["task"]: row for row in csv.DictReader(files["export_csv"].open())}
    expected = evaluation[0].measured["t2i"].metrics["r5"]
    assert float(by_task["zeroshot_retrieval"]["image_retrieval_recall@5"]) == pytest.approx(expected)
