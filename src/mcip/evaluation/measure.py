"""Measure one model on one task: the task's data, the model's vectors of them, and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError, DataError
from mcip.core.processes import processes
from mcip.core.topk import topk
from mcip.data import Table
from mcip.embeddings.compact import Codec, Compact
from mcip.evaluation.benchmarks.base import (
    Classification,
    ComposedRetrieval,
    CrossModal,
    Data,
    Retrieval,
    TextRetrieval,
    ZeroShot,
)
from mcip.evaluation.compacted import CompactEncoder, fit_images
from mcip.evaluation.composed import composed, composed_texts
from mcip.evaluation.encoders import Encoded, Encoder, Session
from mcip.evaluation.tasks import Task
from mcip.metrics import (
    alignment,
    average_precisions,
    bootstrap_interval,
    cross_modal_hits,
    hits_at_k,
    knn_hits,
    modality_gap,
    revisited_average_precisions,
    top_hits,
    zero_shot_classify,
)
from mcip.metrics.means import mean
from mcip.metrics.revisited import Difficulty

# Metric to its value for each query, NaN for queries that have none.
PerQuery: TypeAlias = Mapping[str, NDArray[np.float64]]

_KS = (1, 5, 10)
_TOPS = (1, 5)


@dataclass(frozen=True)
class Measurement:
    """What a model reached at a task.

    Attributes:
        metrics: By name, shares from 0 to 1; NaN where there are no queries.
        interval: The 95 % bootstrap interval over the queries of the metric that stands for the task.
        per_query: That metric's value for each query, NaN where it has none.
        space: How images and their captions lie in the joint space, as `joint_space` gives it; empty for other tasks.
    """

    metrics: dict[str, float]
    interval: tuple[float, float]
    per_query: NDArray[np.float64]
    space: dict[str, float]


def measure(session: Session, task: Task, compact: Compact | None = None) -> Measurement:
    """Measure a task.

    Args:
        session: The model, and its embeddings.
        task: The task.
        compact: How the gallery is stored; None measures the embeddings as the model gives them.

    Raises:
        DataError: The task's data lack what it needs.
        ConfigError: The metric that stands for the task is none of its kind, or the model has too few dimensions.
    """
    data = session.sources.data(task)
    encoder: Encoder = session if compact is None else _compacted(session, task, data, compact)
    values_by_metric = per_query(encoder, task, data)
    headline = values_by_metric.get(task.headline)
    if headline is None:
        raise ConfigError(
            f"Task {task.name!r}: there is no metric {task.headline!r}; there are {', '.join(values_by_metric)}."
        )
    metrics = {name: mean(values) for name, values in values_by_metric.items()}
    space = joint_space(encoder, task, data) if isinstance(data, CrossModal) else {}
    return Measurement(metrics, bootstrap_interval(headline), headline, space)


def _compacted(encoder: Encoder, task: Task, data: Data, compact: Compact) -> Encoder:
    """An encoder whose gallery is stored as `compact` says, fitted to the gallery of the task."""
    if task.kind == "i2t" and isinstance(data, CrossModal):
        return CompactEncoder(encoder, Codec.fit(compact, _pairs(encoder, task, data)[1]), texts_stored=True)
    if isinstance(data, Classification):
        gallery = [data.train]
    elif isinstance(data, Retrieval):
        gallery = [*data.gallery] or [data.queries]
    elif isinstance(data, ComposedRetrieval):
        gallery = [data.gallery]
    else:
        gallery = _tables(data)
    return CompactEncoder(encoder, fit_images(compact, [encoder.images(table, task.transform) for table in gallery]))


def embed_data(session: Session, task: Task) -> None:
    """Embed and store all that a task is measured on; several processes do it together."""
    data = session.sources.data(task)
    if isinstance(data, CrossModal):
        _pairs(session, task, data)
        return
    if isinstance(data, ZeroShot):
        processes().first_then_all(lambda: session.classes(data.names, task.templates))
    if isinstance(data, TextRetrieval):
        session.captions(data.texts, data.fingerprint)
    if isinstance(data, ComposedRetrieval):
        composed_texts(session, data)
    for table in _tables(data):
        session.images(table, task.transform)


def _tables(data: Data) -> list[Table]:
    """The tables whose images a task compares."""
    if isinstance(data, Classification):
        return [data.train, data.test]
    if isinstance(data, Retrieval):
        return [data.queries, *data.gallery]
    if isinstance(data, ComposedRetrieval):
        return [data.queries, data.gallery]
    return list(data.gallery) if isinstance(data, TextRetrieval) else [data.images]


def joint_space(encoder: Encoder, task: Task, data: CrossModal) -> dict[str, float]:
    """How images and their captions lie in the joint space.

    Returns:
        `modality_gap`, the distance of the centroids of images and captions, and `probe_accuracy`, how often a linear
        probe tells them apart (0.5 is chance), where there are two or more of each; `alignment`, the mean squared
        distance of a caption and its image.
    """
    images, texts, image_of_text = _pairs(encoder, task, data)
    space = {"alignment": alignment(images[image_of_text], texts)}
    if min(len(images), len(texts)) < 2:
        return space
    gap = modality_gap(images, texts)
    return {"modality_gap": gap.distance, "probe_accuracy": gap.probe_accuracy, **space}


def measure_data(encoder: Encoder, task: Task, data: Data) -> dict[str, float]:
    """The metrics of a task on data that have been read: the means of what `per_query` gives."""
    return {name: mean(values) for name, values in per_query(encoder, task, data).items()}


def per_query(encoder: Encoder, task: Task, data: Data) -> PerQuery:
    """The metrics of a task for each query, on data that have been read.

    Args:
        encoder: Gives the vectors, stored ones or those of a model that is being trained.
        task: The protocol.
        data: What it is measured on.

    Returns:
        Metric to values from 0 to 1, shape (Q,), NaN for queries that have none. Metrics of a part of a benchmark have
        the queries of that part only.

    Raises:
        DataError: The data lack what the task needs.
    """
    return _MEASURES[type(data)](encoder, task, data)


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


def _labelled(
    encoder: Encoder, task: Task, table: Table, queries: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Vectors and labels of the images that have a label and could be read: those of a gallery, or as queries."""
    encoded = encoder.images(table, task.transform)
    places, labels = _with_label(task, table, _labels(table, encoded))
    return (encoded.queries() if queries else encoded.array())[places], labels


def _image_to_image(encoder: Encoder, task: Task, data: Retrieval) -> PerQuery:
    if data.truth is not None:
        return _by_truth(encoder, task, data)
    vectors, labels = _labelled(encoder, task, data.queries, queries=True)
    if data.at is not None:
        return _by_label_at(encoder, task, vectors, labels, data.gallery, data.at)
    if data.gallery:
        images = [encoder.images(table, task.transform) for table in data.gallery]
        gallery = np.concatenate([one.array() for one in images])
        gallery_labels = _gallery_labels(data.gallery, images)
        precisions = average_precisions(vectors, gallery, labels, gallery_labels)
        hits = hits_at_k(vectors, gallery, labels, gallery_labels, data.ks)
    else:
        among_themselves = (vectors, _labelled(encoder, task, data.queries)[0], labels, labels)
        precisions = average_precisions(*among_themselves, task.exclude_self, drop_first=task.drop_first)
        hits = hits_at_k(*among_themselves, data.ks, task.exclude_self, drop_first=task.drop_first)
    of_part = {name: precisions[np.isin(labels, list(part))] for name, part in data.parts.items()}
    parts = {f"map_{name}": values for name, values in of_part.items() if len(values)}
    return {"map": precisions, **_columns("r", data.ks, hits), **parts}


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


def _by_label_at(
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


def _columns(name: str, ks: Sequence[int], hits: NDArray[np.float64]) -> PerQuery:
    return {f"{name}{k}": column for k, column in zip(ks, hits.T, strict=True)}


def _knn(encoder: Encoder, task: Task, data: Classification) -> PerQuery:
    train, train_labels = _labelled(encoder, task, data.train)
    test, test_labels = _labelled(encoder, task, data.test, queries=True)
    return _columns("top", _TOPS, knn_hits(train, train_labels, test, test_labels, tops=_TOPS))


def _zero_shot(encoder: Encoder, task: Task, data: ZeroShot) -> PerQuery:
    vectors, labels = _labelled(encoder, task, data.images)
    classes = encoder.classes(data.names, task.templates)
    keys = list(data.names)
    candidates = keys if data.candidates is None else list(data.candidates)
    # All names are embedded, so that benchmarks that choose among some of them share the rest.
    classes = classes[[keys.index(key) for key in candidates]]
    code = {key: number for number, key in enumerate(candidates)}
    codes = np.array([code.get(label, -1) for label in labels.tolist()])
    return _columns("top", _TOPS, top_hits(zero_shot_classify(vectors, classes, max(_TOPS)), codes, _TOPS))


def _pairs(
    encoder: Encoder, task: Task, data: CrossModal
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The vectors of images (N, D) and of their captions (T, D), and the row of each caption's image (T,)."""
    table = data.images
    encoded = encoder.images(table, task.transform)
    place = {row: index for index, row in enumerate(encoded.rows.tolist())}
    captions = [
        (caption, place[row]) for row, captions in enumerate(table.captions) if row in place for caption in captions
    ]
    if not captions:
        raise DataError(f"Task {task.name!r}: no row of {table.name} has a caption.{table.columns_hint}")
    texts = encoder.captions([caption for caption, _ in captions], table.fingerprint)
    images = encoded.queries() if task.kind == "i2t" else encoded.array()
    return images, texts, np.array([image for _, image in captions], np.int64)


def _cross_modal(encoder: Encoder, task: Task, data: CrossModal) -> PerQuery:
    images, texts, image_of_text = _pairs(encoder, task, data)
    direction: Literal["text_to_image", "image_to_text"] = "text_to_image" if task.kind == "t2i" else "image_to_text"
    return _columns("r", _KS, cross_modal_hits(texts, images, image_of_text, _KS, direction))


def _text_to_image(encoder: Encoder, task: Task, data: TextRetrieval) -> PerQuery:
    vectors = encoder.captions(data.texts, data.fingerprint)
    return _by_label_at(encoder, task, vectors, np.array(data.labels), data.gallery, data.at)


_MEASURES: dict[type[Any], Callable[..., PerQuery]] = {
    Retrieval: _image_to_image,
    Classification: _knn,
    ZeroShot: _zero_shot,
    CrossModal: _cross_modal,
    TextRetrieval: _text_to_image,
    ComposedRetrieval: composed,
}
