"""Validation during training: a table's labels and captions, or a seeded subsample of the benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from mcip.core.choices import Precision
from mcip.core.errors import ConfigError, DataError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import CrossModal, Data, Retrieval, ZeroShot
from mcip.evaluation.live import LiveEncoder, Trained
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
        questions: Its tasks with their data.
    """

    name: str
    questions: Sequence[tuple[Task, Data]]

    @property
    def fingerprint(self) -> str:
        """Identifies the protocols and all images, labels and captions."""
        facts = [(task.as_dict() | {"data": ""}, data.fingerprint) for task, data in self.questions]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def validation_table(
    data: str, split: str | None, validation: str | None, validation_split: str | None
) -> Table | Subsample:
    """What to validate on while the rows `split` of `data` are trained on; see `mcip.tune`.

    Args:
        data: The table that is trained on.
        split: Its rows that are.
        validation: A table, or "quick:" and the benchmarks' folder for the suite "quick" by the paper's protocol.
        validation_split: Of `validation`, or else of `data`.

    Raises:
        ConfigError: There is nothing, or it would be trained on as well.
    """
    if validation is not None and validation.startswith(QUICK):
        sources = Sources()
        suite = find_suite("quick", validation.removeprefix(QUICK)).present(sources)
        return Subsample(validation, [(task, sources.data(task)) for task in suite.tasks])
    if validation is not None:
        return read_table(validation, split=validation_split)
    if validation_split is None:
        raise ConfigError(
            "validate_every is set, but there is nothing to validate on: pass --validation or --validation_split."
        )
    if split in (None, validation_split):
        raise ConfigError(
            f"The rows to validate on, those of the split {validation_split!r}, would be trained on as well: "
            "pass --split with the one to train on."
        )
    return read_table(data, split=validation_split)


class Validation:
    """Scores a model that is being trained on what is not trained on, by the same code as `mcip.evaluate`.

    Only what is trained is run at each validation; the vectors of a locked tower are computed once, here.
    """

    def __init__(
        self,
        model: Model,
        judged: Table | Subsample,
        trained: Trained,
        device: torch.device,
        workers: int = 0,
        precision: Precision = "auto",
    ) -> None:
        """Embed what the locked tower embeds.

        Raises:
            DataError: There is nothing to validate the trained tower on.
        """
        questions = judged.questions if isinstance(judged, Subsample) else _of_table(judged)
        # Without a trained image tower, what asks images only would give the same score every time.
        told = [one for one in questions if trained != "text" or not _images_only(one[1])]
        if not told:
            need = "captions" if trained == "text" else "captions, or classes with two images or more"
            raise DataError(f"{judged.name} has nothing to validate on: it needs {need}.")
        self.model, self.questions = model, told
        self.encoder = LiveEncoder(model, trained, device, workers, precision)
        model.clip.to(device)
        for task, data in told:
            self._embed_locked(task, data)
        model.clip.to("cpu")

    def __call__(self) -> dict[str, float]:
        """The scores of the model as it is now, in [0, 1].

        Returns:
            A name such as `i2i_map`, `knn_top1`, `zero-shot_top1` or `t2i_r5` for each kind of task, to the mean of the
            kind's headline metrics.
        """
        self.encoder.renew()
        found: dict[str, list[float]] = {}
        for task, data in self.questions:
            metrics = measure_data(self.encoder, task, data)
            found.setdefault(f"{task.kind}_{HEADLINE[task.kind]}", []).append(metrics[task.headline])
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _embed_locked(self, task: Task, data: Data) -> None:
        if self.encoder.trained == "text" and isinstance(data, CrossModal | ZeroShot):
            self.encoder.images(data.images, task.transform)
        if self.encoder.trained == "image" and isinstance(data, CrossModal):
            self.encoder.captions([caption for own in data.images.captions for caption in own])
        if self.encoder.trained == "image" and isinstance(data, ZeroShot):
            self.encoder.classes(data.names, task.templates)


def _of_table(table: Table) -> list[tuple[Task, Data]]:
    """Image to image where classes have two images or more, text to image where there are captions."""
    questions: list[tuple[Task, Data]] = []
    labels = [label for label in table.labels if label is not None]
    if len(set(labels)) < len(labels):
        questions.append((Task("i2i", "i2i", table.name), Retrieval(table)))
    if any(table.captions):
        questions.append((Task("t2i", "t2i", table.name), CrossModal(table)))
    return questions


def _images_only(data: Data) -> bool:
    return not isinstance(data, CrossModal | ZeroShot)
