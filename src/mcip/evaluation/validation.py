"""Validation during training: a table's labels and captions, or a seeded subsample of the benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mcip.core.choices import Precision
from mcip.core.errors import ConfigError, DataError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import CrossModal, Data, Retrieval, ZeroShot
from mcip.evaluation.live import AdaptedEncoder, LiveEncoder, Trained
from mcip.evaluation.measure import measure_data
from mcip.evaluation.suites import find_suite
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import HEADLINE, Task
from mcip.models import Model

QUICK: Final = "quick:"


@dataclass(frozen=True)
class Subsample:
    """The suite "quick", read.

    Attributes:
        name: What messages call it.
        tasks: Its tasks with their data.
    """

    name: str
    tasks: Sequence[tuple[Task, Data]]

    columns_hint = ""

    @property
    def fingerprint(self) -> str:
        """Identifies the protocols and all images, labels and captions."""
        facts = [(task.as_dict() | {"data": ""}, data.fingerprint) for task, data in self.tasks]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def validation_table(
    data: Any,
    split: str | None,
    validation: Any,
    validation_split: str | None,
    columns: Mapping[str, str] | str | None = None,
) -> Table | Subsample:
    """What to validate on while the rows `split` of `data` are trained on; see `mcip.tune`.

    Args:
        data: The table that is trained on: itself, or what `mcip.read_table` takes.
        split: Its rows that are.
        validation: A table likewise, or "quick:" and the benchmarks' folder for the suite "quick" by the paper's
            protocol.
        validation_split: Of `validation`, or else of `data`.
        columns: Which of its columns are the table's, see `mcip.read_table`.

    Raises:
        ConfigError: There is nothing, or it would be trained on as well.
    """
    if isinstance(validation, str) and validation.startswith(QUICK):
        sources = Sources()
        suite = find_suite("quick", validation.removeprefix(QUICK)).present(sources)
        return Subsample(validation, [(task, sources.data(task)) for task in suite.tasks])
    if validation is not None:
        return _read(validation, validation_split, columns)
    if validation_split is None:
        raise ConfigError(
            "validate_every is set, but there is nothing to validate on: pass --validation or --validation_split."
        )
    if split in (None, validation_split):
        raise ConfigError(
            f"The rows to validate on, those of the split {validation_split!r}, would be trained on as well: "
            "pass --split with the one to train on."
        )
    return _read(data, validation_split, columns)


def _read(data: Any, split: str | None, columns: Mapping[str, str] | str | None) -> Table:
    return data.select(split) if isinstance(data, Table) else read_table(data, split, columns)


class Validation:
    """Measures a model that is being trained on held-out data, by the same code as `mcip.evaluate`.

    Called, it returns the scores. Only the trained towers run at each call; the vectors of a locked tower are computed
    once, when it is made; so are those of all images where only a matrix behind the image tower is trained.

    Example:
        >>> validation = Validation(model, table, "image", torch.device("cpu"))  # doctest: +SKIP
        >>> validation()  # doctest: +SKIP
        {'i2i_map': 0.173, 't2i_r5': 0.578}
    """

    def __init__(
        self,
        model: Model,
        held_out: Table | Subsample,
        trained: Trained,
        device: torch.device,
        workers: int = 0,
        precision: Precision = "auto",
    ) -> None:
        """Embed what the locked tower embeds.

        Raises:
            DataError: There is nothing to validate the trained tower on.
        """
        tasks = held_out.tasks if isinstance(held_out, Subsample) else _tasks_of(held_out)
        # Without a trained image tower, tasks of images only would give the same score every time.
        active_tasks = [(task, data) for task, data in tasks if trained != "text" or not _images_only(data)]
        if not active_tasks:
            need = "captions" if trained == "text" else "captions, or classes with two images or more"
            raise DataError(f"{held_out.name} has nothing to validate on: it needs {need}.{held_out.columns_hint}")
        self.model, self.active_tasks = model, active_tasks
        self.encoder = (
            AdaptedEncoder(model, device, workers, precision)
            if trained == "adapter"
            else LiveEncoder(model, trained, device, workers, precision)
        )
        model.clip.to(device)
        for task, data in active_tasks:
            self._embed_locked(task, data)
            if trained == "adapter":
                measure_data(self.encoder, task, data)  # for what it encodes
        model.clip.to("cpu")

    def __call__(self, matrix: Tensor | None = None) -> dict[str, float]:
        """The scores of the model as it is now, in [0, 1].

        Args:
            matrix: What the image embeddings are multiplied by, where that is what is trained ("adapter").

        Returns:
            A name such as `i2i_map`, `knn_top1`, `zero-shot_top1` or `t2i_r5` for each kind of task, to the mean of the
            kind's headline metrics.
        """
        if isinstance(self.encoder, AdaptedEncoder):
            self.encoder.matrix = matrix
        self.encoder.renew()
        scores: dict[str, list[float]] = {}
        for task, data in self.active_tasks:
            metrics = measure_data(self.encoder, task, data)
            scores.setdefault(f"{task.kind}_{HEADLINE[task.kind]}", []).append(metrics[task.headline])
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def _embed_locked(self, task: Task, data: Data) -> None:
        if self.encoder.trained == "text" and isinstance(data, CrossModal | ZeroShot):
            self.encoder.images(data.images, task.transform)
        if self.encoder.trained == "image" and isinstance(data, CrossModal):
            self.encoder.captions([caption for captions in data.images.captions for caption in captions])
        if self.encoder.trained == "image" and isinstance(data, ZeroShot):
            self.encoder.classes(data.names, task.templates)


def _tasks_of(table: Table) -> list[tuple[Task, Data]]:
    """Image to image where classes have two images or more, text to image where there are captions."""
    tasks: list[tuple[Task, Data]] = []
    labels = [label for label in table.labels if label is not None]
    if len(set(labels)) < len(labels):
        tasks.append((Task("i2i", "i2i", table.name), Retrieval(table)))
    if any(table.captions):
        tasks.append((Task("t2i", "t2i", table.name), CrossModal(table)))
    return tasks


def _images_only(data: Data) -> bool:
    return not isinstance(data, CrossModal | ZeroShot)
