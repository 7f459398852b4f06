"""From a task to its data: a benchmark's, or those of a table."""

from __future__ import annotations

from functools import partial

import numpy as np

from mcip.core.errors import ConfigError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Classification, CrossModal, Data, Retrieval, TextRetrieval, ZeroShot
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import PRESETS
from mcip.evaluation.subsample import subsample
from mcip.evaluation.tasks import Task


class Sources:
    """Reads the data of tasks, each once, and what benchmarks share once for all of them."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._places: dict[str, Places] = {}
        self._data: dict[Task, Data] = {}

    def data(self, task: Task) -> Data:
        """The data of a task.

        Raises:
            DataError: They are missing, or not as they must be.
        """
        if task not in self._data:
            whole = self.whole(task) if task.benchmark is not None else table_data(task)
            self._data[task] = whole if task.limit is None else subsample(whole, task.limit)
        return self._data[task]

    def whole(self, task: Task) -> Data:
        """The data of a benchmark's task without the limit.

        Raises:
            ConfigError: There is no such benchmark, or it asks another kind of question.
            DataError: It is missing, or not as it must be.
        """
        if task.benchmark not in BENCHMARKS:
            raise ConfigError(
                f"Task {task.name!r}: there is no benchmark {task.benchmark!r}; there are {', '.join(BENCHMARKS)}."
            )
        benchmark = BENCHMARKS[task.benchmark]
        if task.kind != benchmark.kind:
            raise ConfigError(
                f"Task {task.name!r}: the benchmark {benchmark.name!r} is {benchmark.kind!r}, not {task.kind!r}."
            )
        if task.data not in self._places:
            self._places[task.data] = Places(task.data)
        places, preset = self._places[task.data], PRESETS[task.preset or "standard"]
        return places.once(f"data of {benchmark.name} {preset.name}", partial(benchmark.read, places, preset))


def task_table(task: Task, split: str | None) -> Table:
    """The table of a task, its label column as the task names it; of a benchmark the images that are asked about."""
    if task.benchmark is not None:
        return _asked(Sources().data(task))
    return read_table(task.data, split=split, columns=None if task.label == "label" else {"label": task.label})


def table_data(task: Task) -> Data:
    """The data of a task that is asked of a table."""
    table = task_table(task, task.split)
    if task.kind == "i2i":
        return Retrieval(table)
    if task.kind == "knn":
        return Classification(train=task_table(task, task.index_split), test=table)
    if task.kind == "zero-shot":
        labels = np.unique([label for label in table.labels if label is not None]).tolist()
        return ZeroShot(table, {label: label for label in labels})
    return CrossModal(table)


def _asked(data: Data) -> Table:
    if isinstance(data, Retrieval):
        return data.queries
    if isinstance(data, Classification):
        return data.test
    return data.gallery[0] if isinstance(data, TextRetrieval) else data.images
