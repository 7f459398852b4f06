"""Results as other programs take them: a CSV with CLIP_benchmark's columns, and JSON lines that `datasets` reads."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final

import open_clip

from mcip.evaluation.tasks import Kind
from mcip.reporting.results import Measured, Results

# As `clip_benchmark build` writes them; the columns of our own tasks follow.
COLUMNS: Final = (
    "dataset", "model", "pretrained", "model_fullname", "language", "task", "acc1", "acc5", "mean_per_class_recall",
    "mean_average_precision", "image_retrieval_recall@1", "image_retrieval_recall@5", "image_retrieval_recall@10",
    "text_retrieval_recall@1", "text_retrieval_recall@5", "text_retrieval_recall@10",
)  # fmt: skip
# What CLIP_benchmark calls a task of each kind. The last three it does not have: the names are ours.
_TASKS: Final[dict[Kind, str]] = {
    "zero-shot": "zeroshot_classification", "t2i": "zeroshot_retrieval", "i2t": "zeroshot_retrieval",
    "i2i": "image_to_image_retrieval", "knn": "knn_classification",
    "composed": "composed_image_retrieval",
}  # fmt: skip
_DATA_SETS: Final = {
    "coco": "mscoco_captions", "aircraft": "fgvc_aircraft", "flowers": "vtab/flowers", "imagenet": "imagenet1k",
    "imagenet-v2": "imagenetv2", "imagenet-sketch": "imagenet_sketch",
}  # fmt: skip
# Benchmarks of one data set differ in these parts of their names.
_KIND_PARTS: Final = re.compile(r"^(knn|zero-shot)-|-(i2t|t2i)$")
_RECALL: Final = {"t2i": "image_retrieval_recall@", "i2t": "text_retrieval_recall@", "i2i": "image_to_image_recall@"}


def clip_benchmark_csv(results: Sequence[Results]) -> str:
    """One row per model, data set and task, values as shares from 0 to 1.

    Text to image and image to text of the same data set stand in one row, as in CLIP_benchmark.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for result in results:
        for measured in result.measured.values():
            head = _head(result, measured)
            row = rows.setdefault((result.model, head["dataset"], head["task"]), head)
            row.update(_metrics(measured))
    ours = sorted({column for row in rows.values() for column in row} - set(COLUMNS), key=_by_number)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *ours], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    return text.getvalue()


def _by_number(column: str) -> tuple[str, int]:
    """recall@5 before recall@10."""
    name, number = re.fullmatch(r"(.*?)(\d*)", column).groups()  # type: ignore[union-attr]
    return name, int(number or 0)


def json_lines(results: Sequence[Results]) -> str:
    """One line per model, task and metric, each with the same keys.

    Read by `datasets.load_dataset("json", data_files=FILE)`. `value`, `low` and `high` are shares from 0 to 1; `low`
    and `high`, the 95 % bootstrap interval, are null beside metrics that do not stand for their task.
    """
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for result in results for line in _lines(result))


def _head(result: Results, measured: Measured) -> dict[str, Any]:
    model, separator, pretrained = result.source.rpartition("/")
    if not separator or not _is_tagged(result.source):
        model, pretrained = result.model, result.source
    task = measured.task
    data_set = _KIND_PARTS.sub("", task.benchmark) if task.benchmark else PurePath(task.data).stem
    return {
        "dataset": _DATA_SETS.get(data_set, data_set), "model": model, "pretrained": pretrained,
        "model_fullname": f"{model} {pretrained}", "language": "en", "task": _TASKS[task.kind],
    }  # fmt: skip


def _is_tagged(source: str) -> bool:
    """Whether a source is the name and the tag of one of open_clip's models."""
    architecture, _, tag = source.rpartition("/")
    return tag in open_clip.list_pretrained_tags_by_model(architecture)


def _metrics(measured: Measured) -> Iterator[tuple[str, float]]:
    """The metrics by their names in CLIP_benchmark; others keep theirs."""
    kind = measured.task.kind
    for name, value in measured.metrics.items():
        if math.isfinite(value):
            yield _column(kind, name), value


def _column(kind: Kind, metric: str) -> str:
    if metric == "map":
        return "mean_average_precision"
    if metric.startswith("top"):
        return f"acc{metric.removeprefix('top')}"
    if metric.startswith("r") and metric[1:].isdigit() and kind in _RECALL:
        return _RECALL[kind] + metric[1:]
    return metric


def _lines(result: Results) -> Iterator[dict[str, Any]]:
    for name, measured in result.measured.items():
        for metric, value in measured.metrics.items():
            headline = metric == measured.headline
            low, high = (measured.interval if headline else None) or (None, None)
            yield {
                "model": result.model, "source": result.source, "fingerprint": result.fingerprint,
                "suite": result.suite, "task": name, "kind": measured.task.kind, "benchmark": measured.task.benchmark,
                "preset": measured.task.preset, "transform": measured.task.transform, "metric": metric,
                "value": _number(value), "headline": headline, "low": _number(low), "high": _number(high),
                "data_hash": measured.data_hash,
            }  # fmt: skip


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
