"""Measure one model on one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from mcip.data import Table, read_table
from mcip.device import Precision
from mcip.embed import embed_captions, embed_images
from mcip.embeddings import Embeddings
from mcip.errors import DataError
from mcip.evaluation.tasks import Kind, Task
from mcip.metrics import (
    average_precisions,
    bootstrap_interval,
    cross_modal_hits,
    hits_at_k,
    knn_hits,
    top_hits,
    zero_shot_classify,
)
from mcip.metrics.means import mean
from mcip.models import Model

_KS = (1, 5, 10)
_TOPS = (1, 5)


@dataclass(frozen=True)
class Session:
    """A model with a folder in which its embeddings are kept, for other tasks and other runs.

    Attributes:
        model: The model that is measured.
        store: The folder of the embeddings.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images.
        precision: Of the forward passes.
        max_unreadable: The share of images that may be unreadable.
    """

    model: Model
    store: Path
    batch_size: int = 256
    workers: int = 0
    precision: Precision = "auto"
    max_unreadable: float = 0.01

    def images(self, table: Table, task: Task) -> Embeddings:
        """The embeddings of a table's images."""
        folder = self.store / images_name(table, self.model.fingerprint, task.transform)
        return embed_images(
            table, self.model, folder, transform=task.transform, batch_size=self.batch_size,
            workers=self.workers, precision=self.precision, max_unreadable=self.max_unreadable,
        )  # fmt: skip

    def captions(self, captions: list[str], table: Table) -> NDArray[np.float32]:
        """The embeddings of a table's captions."""
        name = f"captions-{table.fingerprint[:16]}-{self.model.fingerprint[:16]}"
        return embed_captions(
            captions,
            self.model,
            self.store / name,
            batch_size=self.batch_size,
            precision=self.precision,
            source=table.name,
        ).array()


def images_name(table: Table, model_fingerprint: str, transform: str) -> str:
    """The name, within a session's store, of the folder with a model's embeddings of a table's images."""
    return f"images-{table.images_fingerprint[:16]}-{model_fingerprint[:16]}-{transform}"


@dataclass(frozen=True)
class Measurement:
    """What a model reached at a task.

    Attributes:
        metrics: By name, shares from 0 to 1.
        interval: The 95 % bootstrap interval over the queries of the metric that stands for the task.
        per_query: That metric's value for each query, NaN where it has none.
    """

    metrics: dict[str, float]
    interval: tuple[float, float]
    per_query: NDArray[np.float64]


def measure(session: Session, task: Task) -> Measurement:
    """Measure a task.

    Raises:
        DataError: The table lacks what the task needs.
    """
    per_query = _MEASURES[task.kind](session, task)
    headline = per_query[task.headline]
    metrics = {name: mean(values) for name, values in per_query.items()}
    return Measurement(metrics, bootstrap_interval(headline), headline)


def data_hash(task: Task) -> str:
    """What identifies the rows a task is measured on."""
    splits = [task.split] if task.index_split is None else [task.split, task.index_split]
    return "-".join(task_table(task, split).fingerprint[:16] for split in splits)


def task_table(task: Task, split: str | None) -> Table:
    """The table of a task, its label column as the task names it."""
    return read_table(task.data, split=split, columns=None if task.label == "label" else {"label": task.label})


def _labelled(session: Session, task: Task, split: str | None) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Vectors and labels of the rows that have a label and could be read."""
    table = task_table(task, split)
    embeddings = session.images(table, task)
    rows, labels = labelled_rows(task, table, embeddings)
    return embeddings.array()[rows], labels


def labelled_rows(task: Task, table: Table, embeddings: Embeddings) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """The rows of `embeddings` whose image has a label in `table`, and these labels.

    Raises:
        DataError: No image has one.
    """
    label_of = dict(zip(table.ids, table.labels, strict=True))
    labels = [label_of[image] for image in embeddings.ids]
    rows = np.array([row for row, label in enumerate(labels) if label is not None], np.int64)
    if not len(rows):
        raise DataError(f"Task {task.name!r}: no row of {table.name} has a {task.label}.")
    return rows, np.array([label for label in labels if label is not None])


def _image_to_image(session: Session, task: Task) -> dict[str, NDArray[np.float64]]:
    vectors, labels = _labelled(session, task, task.split)
    arguments = (vectors, vectors, labels, labels)
    hits = hits_at_k(*arguments, _KS, task.exclude_self)
    return {"map": average_precisions(*arguments, task.exclude_self), **_columns("r", _KS, hits)}


def _knn(session: Session, task: Task) -> dict[str, NDArray[np.float64]]:
    train, train_labels = _labelled(session, task, task.index_split)
    test, test_labels = _labelled(session, task, task.split)
    return _columns("top", _TOPS, knn_hits(train, train_labels, test, test_labels, tops=_TOPS))


def class_embeddings(model: Model, names: list[str], templates: tuple[str, ...]) -> NDArray[np.float32]:
    """The embedding of each class name: the mean over the templates of the normalised embeddings, renormalised.

    Returns:
        float32 of shape (C, D).
    """
    prompts = [template.format(name.replace("_", " ")) for name in names for template in templates]
    encoded = model.encode_texts(prompts).view(len(names), len(templates), -1)
    array: NDArray[np.float32] = F.normalize(encoded.mean(1), dim=-1).cpu().numpy()
    return array


def _zero_shot(session: Session, task: Task) -> dict[str, NDArray[np.float64]]:
    vectors, labels = _labelled(session, task, task.split)
    names, codes = np.unique(labels, return_inverse=True)
    classes = class_embeddings(session.model, names.tolist(), task.templates)
    ranked = zero_shot_classify(vectors, classes, top=max(_TOPS))
    return _columns("top", _TOPS, top_hits(ranked, codes, _TOPS))


def _pairs(session: Session, task: Task) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Vectors of images and of captions, and the place of each caption's image."""
    table = task_table(task, task.split)
    embeddings = session.images(table, task)
    place = {image: index for index, image in enumerate(embeddings.ids)}
    captions = [
        (caption, place[image])
        for image, own in zip(table.ids, table.captions, strict=True)
        for caption in own
        if image in place
    ]
    if not captions:
        raise DataError(f"Task {task.name!r}: no row of {table.name} has a caption.")
    texts = session.captions([caption for caption, _ in captions], table)
    return embeddings.array(), texts, np.array([image for _, image in captions], np.int64)


def _text_to_image(session: Session, task: Task) -> dict[str, NDArray[np.float64]]:
    images, texts, image_of_text = _pairs(session, task)
    return _columns("r", _KS, cross_modal_hits(texts, images, image_of_text, _KS))


def _image_to_text(session: Session, task: Task) -> dict[str, NDArray[np.float64]]:
    images, texts, image_of_text = _pairs(session, task)
    return _columns("r", _KS, cross_modal_hits(texts, images, image_of_text, _KS, direction="image_to_text"))


def _columns(name: str, ks: tuple[int, ...], hits: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {f"{name}{k}": column for k, column in zip(ks, hits.T, strict=True)}


# Per kind of task, the value of each metric for each query.
_MEASURES: dict[Kind, Callable[[Session, Task], dict[str, NDArray[np.float64]]]] = {
    "i2i": _image_to_image,
    "knn": _knn,
    "zero-shot": _zero_shot,
    "t2i": _text_to_image,
    "i2t": _image_to_text,
}
