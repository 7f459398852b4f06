"""Queries against a gallery of images: by the labels of the images, or by a ground truth of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import DataError
from mcip.core.topk import topk
from mcip.data import Table
from mcip.evaluation.benchmarks.base import Retrieval
from mcip.evaluation.encoders import Encoded, Encoder
from mcip.evaluation.tasks import Task
from mcip.metrics import average_precisions, hits_at_k, revisited_average_precisions
from mcip.metrics.revisited import Difficulty

# Metric to its value for each query, NaN for queries that have none.
PerQuery: TypeAlias = Mapping[str, NDArray[np.float64]]


def _with_label(task: Task, table: Table, labels: Sequence[str | None]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """The places of the labels that are not None, and these."""
    places = np.array([place for place, label in enumerate(labels) if label is not None], np.int64)
    if not len(places):
        raise DataError(f"Task {task.name!r}: no row of {table.name} has a {task.label}.{table.columns_hint}")
    return places, np.array([label for label in labels if label is not None])


def _labels(table: Table, encoded: Encoded) -> list[str | None]:
    return [table.labels[row] for row in encoded.rows]


def _gallery_labels(gallery: Sequence[Table], images: Sequence[Encoded]) -> list[str | None]:
    return [label for table, one in zip(gallery, images, strict=True) for label in _labels(table, one)]


def labelled(
    encoder: Encoder, task: Task, table: Table, queries: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Vectors and labels of the images that have a label and could be read: those of a gallery, or as queries."""
    encoded = encoder.images(table, task.transform)
    places, labels = _with_label(task, table, _labels(table, encoded))
    return (encoded.queries() if queries else encoded.array())[places], labels


def image_to_image(encoder: Encoder, task: Task, data: Retrieval) -> PerQuery:
    """Queries of images against a gallery of images, by labels or by a ground truth of its own."""
    if data.truth is not None:
        return _by_truth(encoder, task, data)
    vectors, labels = labelled(encoder, task, data.queries, queries=True)
    if data.at is not None:
        return by_label_at(encoder, task, vectors, labels, data.gallery, data.at)
    if data.gallery:
        images = [encoder.images(table, task.transform) for table in data.gallery]
        gallery = np.concatenate([one.array() for one in images])
        gallery_labels = _gallery_labels(data.gallery, images)
        precisions = average_precisions(vectors, gallery, labels, gallery_labels)
        hits = hits_at_k(vectors, gallery, labels, gallery_labels, data.ks)
    else:
        among_themselves = (vectors, labelled(encoder, task, data.queries)[0], labels, labels)
        precisions = average_precisions(*among_themselves, task.exclude_self, drop_first=task.drop_first)
        hits = hits_at_k(*among_themselves, data.ks, task.exclude_self, drop_first=task.drop_first)
    of_part = {name: precisions[np.isin(labels, list(part))] for name, part in data.parts.items()}
    parts = {f"map_{name}": values for name, values in of_part.items() if len(values)}
    return {"map": precisions, **columns("r", data.ks, hits), **parts}


def _by_truth(encoder: Encoder, task: Task, data: Retrieval) -> PerQuery:
    """With easy, hard and junk images by query: under "map" the mAP of medium, and that of each difficulty."""
    assert data.truth is not None
    queries = encoder.images(data.queries, task.transform)
    images = [encoder.images(table, task.transform) for table in data.gallery]
    starts = np.cumsum([0, *map(len, data.gallery)])
    # The truth names rows of the tables; images that could not be read have no place among the vectors.
    place = np.full(starts[-1], -1)
    encoded_rows = np.concatenate([one.rows + start for one, start in zip(images, starts[:-1], strict=True)])
    place[encoded_rows] = np.arange(len(encoded_rows))
    truth = [
        {kind: [int(place[row]) for row in rows if place[row] >= 0] for kind, rows in data.truth[query].items()}
        for query in queries.rows
    ]
    gallery, vectors = np.concatenate([one.array() for one in images]), queries.queries()
    levels: tuple[Difficulty, ...] = ("easy", "medium", "hard")
    by_level = {f"map_{level}": revisited_average_precisions(vectors, gallery, truth, level) for level in levels}
    # A ground truth without hard images has one difficulty only.
    return {"map": by_level["map_medium"], **({} if np.isnan(by_level["map_hard"]).all() else by_level)}


def by_label_at(
    encoder: Encoder,
    task: Task,
    vectors: NDArray[np.float32],
    labels: NDArray[np.str_],
    gallery: Sequence[Table],
    at: int,
) -> PerQuery:
    """The mAP of rankings cut at `at`, block by block, so that the gallery may be larger than memory."""
    images = [encoder.images(table, task.transform) for table in gallery]
    gallery_labels = np.array([label or "" for label in _gallery_labels(gallery, images)])
    nearest = topk(vectors, _blocks(images), at)[1].cpu().numpy()
    hits = gallery_labels[nearest] == labels[:, None]
    counts = dict(zip(*np.unique(gallery_labels, return_counts=True), strict=True))
    relevant = np.array([counts.get(label, 0) for label in labels])
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        precisions = np.where(relevant > 0, (precision * hits).sum(1) / np.minimum(relevant, at), np.nan)
    return {f"map@{at}": precisions, "r1": np.where(relevant > 0, hits[:, 0], np.nan)}


def _blocks(images: Sequence[Encoded]) -> Iterator[tuple[int, NDArray[Any]]]:
    start = 0
    for one in images:
        for shard in one.shards:
            yield start, shard
            start += len(shard)


def columns(name: str, ks: Sequence[int], hits: NDArray[np.float64]) -> PerQuery:
    """A metric for each k, from hits of shape (Q, len(ks))."""
    return {f"{name}{k}": column for k, column in zip(ks, hits.T, strict=True)}
