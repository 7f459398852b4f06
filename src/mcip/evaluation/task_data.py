"""From a task to its data: a benchmark's, or those of a table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from mcip.core.errors import ConfigError
from mcip.data import Table, read_table
from mcip.data.column_names import columns_of
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Classification, CrossModal, Data, Retrieval, ZeroShot
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import PRESETS
from mcip.evaluation.subsample import subsample
from mcip.evaluation.tasks import Task


class Sources:
    """Reads the data of tasks, each once, and what benchmarks share once for all of them."""

    def __init__(self, tables: Mapping[str, Table] | None = None) -> None:
        """Read nothing yet.

        Args:
            tables: Tables that have been read, by the name that tasks have for them in `data` or `index_data`.
        """
        self.tables = dict(tables or {})
        self._places: dict[str, Places] = {}
        self._data: dict[Task, Data] = {}

    def data(self, task: Task) -> Data:
        """The data of a task.

        Raises:
            DataError: They are missing, or not as they must be.
        """
        if task not in self._data:
            whole = self.whole(task) if task.benchmark is not None else self._of_table(task)
            self._data[task] = whole if task.limit is None else subsample(whole, task.limit)
        return self._data[task]

    def whole(self, task: Task) -> Data:
        """The data of a benchmark's task without the limit.

        Raises:
            ConfigError: There is no such benchmark, or it is of another kind.
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

    def table(self, data: str, split: str | None = None, label: str = "label", columns: str | None = None) -> Table:
        """The rows of a table, its columns as a task names them.

        Raises:
            ConfigError: A table that was read before has another label column.
            DataError: It is missing, or not as it must be.
        """
        if data not in self.tables:
            named = columns_of(columns) | ({} if label == "label" else {"label": label})
            return read_table(data, split=split, columns=named)
        if label != "label":
            raise ConfigError(f"{data} was given as a table, whose labels are in the column 'label', not {label!r}.")
        return self.tables[data].select(split)

    def _of_table(self, task: Task) -> Data:
        table = self.table(task.data, task.split, task.label, task.columns)
        if task.kind == "i2i":
            return Retrieval(table)
        if task.kind == "knn":
            votes = self.table(task.index_data or task.data, task.index_split, task.label, task.columns)
            return Classification(votes, table)
        if task.kind == "zero-shot":
            labels = np.unique([label for label in table.labels if label is not None]).tolist()
            return ZeroShot(table, {label: label for label in labels})
        return CrossModal(table)
