"""Measure one model on one task: the task's data, the model's vectors of them, and the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError, DataError
from mcip.core.processes import processes
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
from mcip.evaluation.encoders import Encoder, Session
from mcip.evaluation.image_retrieval import PerQuery, by_label_at, columns, image_to_image, labelled
from mcip.evaluation.tasks import Task
from mcip.metrics import (
    alignment,
    bootstrap_interval,
    cross_modal_hits,
    knn_hits,
    modality_gap,
    top_hits,
    zero_shot_classify,
)
from mcip.metrics.means import mean

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
        gallery = tables_of(data)
    images = [encoder.images(table, task.transform).shards for table in gallery]
    return CompactEncoder(encoder, fit_images(compact, images))


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
    for table in tables_of(data):
        session.images(table, task.transform)


def tables_of(data: Data) -> list[Table]:
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


def _knn(encoder: Encoder, task: Task, data: Classification) -> PerQuery:
    train, train_labels = labelled(encoder, task, data.train)
    test, test_labels = labelled(encoder, task, data.test, queries=True)
    return columns("top", _TOPS, knn_hits(train, train_labels, test, test_labels, tops=_TOPS))


def _zero_shot(encoder: Encoder, task: Task, data: ZeroShot) -> PerQuery:
    vectors, labels = labelled(encoder, task, data.images)
    classes = encoder.classes(data.names, task.templates)
    keys = list(data.names)
    candidates = keys if data.candidates is None else list(data.candidates)
    # All names are embedded, so that benchmarks that choose among some of them share the rest.
    classes = classes[[keys.index(key) for key in candidates]]
    code = {key: number for number, key in enumerate(candidates)}
    codes = np.array([code.get(label, -1) for label in labels.tolist()])
    return columns("top", _TOPS, top_hits(zero_shot_classify(vectors, classes, max(_TOPS)), codes, _TOPS))


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
    return columns("r", _KS, cross_modal_hits(texts, images, image_of_text, _KS, direction))


def _text_to_image(encoder: Encoder, task: Task, data: TextRetrieval) -> PerQuery:
    vectors = encoder.captions(data.texts, data.fingerprint)
    return by_label_at(encoder, task, vectors, np.array(data.labels), data.gallery, data.at)


_MEASURES: dict[type[Any], Callable[..., PerQuery]] = {
    Retrieval: image_to_image,
    Classification: _knn,
    ZeroShot: _zero_shot,
    CrossModal: _cross_modal,
    TextRetrieval: _text_to_image,
    ComposedRetrieval: composed,
}
