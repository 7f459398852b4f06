"""Results files read and compared: what each model reached at each task, against a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mcip.artefacts import read_json
from mcip.errors import ArtefactError, ConfigError
from mcip.evaluation.tasks import Kind, Task, task_from

RESULTS = "results"
KIND_WORDS: dict[Kind, str] = {
    "i2i": "image to image", "knn": "k-NN", "zero-shot": "zero-shot", "t2i": "text to image", "i2t": "image to text",
}  # fmt: skip
METRIC_WORDS = {"map": "mAP", "top1": "top-1", "top5": "top-5", "r1": "R@1", "r5": "R@5", "r10": "R@10"}
# What two measurements must have in common to stand in one column; where the data lies may differ.
_PROTOCOL = ("kind", "split", "index_split", "label", "transform", "exclude_self", "templates")
_TASK_KEYS = {field.name for field in fields(Task)}


@dataclass(frozen=True)
class Measured:
    """What one model reached at one task.

    Attributes:
        task: The task.
        data_hash: Identifies the rows it was measured on.
        headline: The metric that stands for the task.
        metrics: All its metrics, as shares from 0 to 1.
    """

    task: Task
    data_hash: str
    headline: str
    metrics: Mapping[str, float]

    @property
    def percent(self) -> float | None:
        """The headline metric in percent, rounded to 0.01; None where it is missing or not a number."""
        value = self.metrics.get(self.headline)
        return None if value is None or not math.isfinite(value) else round(100 * value, 2)


@dataclass(frozen=True)
class Results:
    """One model's results file.

    Attributes:
        model: The name it was evaluated by.
        source: What was loaded.
        fingerprint: Of its weights.
        suite: The suite it was measured on.
        stores: Folders in which its embeddings may be.
        measured: By the task's name.
    """

    model: str
    source: str
    fingerprint: str
    suite: str
    stores: tuple[Path, ...]
    measured: Mapping[str, Measured]


def read_results(path: str | Path) -> Results:
    """Read a file that `mcip evaluate` wrote.

    Raises:
        ArtefactError: It is missing, or something else.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != RESULTS:
        raise ArtefactError(f"{path} is not a results file: give the JSON files that `mcip evaluate` wrote.")
    try:
        measured = [_measured(entry, path) for entry in content["tasks"]]
        return Results(
            content["model"], content["source"], content["fingerprint"], content["suite"],
            (Path(content["embeddings"]), path.parent / "embeddings"), {one.task.name: one for one in measured},
        )  # fmt: skip
    except KeyError as error:
        raise ArtefactError(f"{path} has no {error}: evaluate the model again.") from error


def _measured(entry: dict[str, Any], path: Path) -> Measured:
    task = task_from({key: value for key, value in entry.items() if key in _TASK_KEYS}, str(path))
    return Measured(task, entry["data_hash"], entry["headline"], entry["metrics"])


@dataclass(frozen=True)
class Comparison:
    """Several models' results side by side. Values are headline metrics in percent, differences are in points.

    Attributes:
        results: One per model; no two have the same name.
        baseline: The name of the model that the others are compared to.
        highlight: The name of the model that stands for the others; None for the one with the best mean.
    """

    results: Sequence[Results]
    baseline: str
    highlight: str | None = None

    @classmethod
    def of(cls, results: Sequence[Results], baseline: str | None = None, highlight: str | None = None) -> Comparison:
        """Put results side by side; the baseline is the first one unless it is named.

        Raises:
            ConfigError: There are none, two have one name, a model is unknown, or a task was not the same for all.
        """
        if not results:
            raise ConfigError("There are no results to report: give the JSON files that `mcip evaluate` wrote.")
        names = [result.model for result in results]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"Two results files are of a model {twice[0]!r}: evaluate under different names.")
        for role, name in (("baseline", baseline), ("highlight", highlight)):
            if name is not None and name not in names:
                near = get_close_matches(name, names, n=1) or names
                raise ConfigError(f"{role}: there are no results of {name!r}; there are those of {', '.join(near)}.")
        comparison = cls(results, names[0] if baseline is None else baseline, highlight)
        if comparison.highlight == comparison.baseline:
            raise ConfigError(f"{highlight!r} is the baseline: highlight another model.")
        comparison._check_protocols()
        return comparison

    def _check_protocols(self) -> None:
        if "model" in self.tasks:
            raise ConfigError("A task is called 'model', which names the models in tables: rename the task.")
        for name, first in self.tasks.items():
            for result in self.results:
                other = result.measured.get(name)
                if other is None:
                    continue
                unlike = [key for key in _PROTOCOL if getattr(other.task, key) != getattr(first.task, key)]
                if unlike or other.data_hash != first.data_hash:
                    what = ", ".join(unlike) or "data"
                    raise ConfigError(
                        f"Task {name!r} was not the same for {result.model!r} as for the models before it ({what} "
                        "differ): evaluate them with one suite, or give the tasks different names."
                    )

    @property
    def models(self) -> list[str]:
        """The names of the models, in order."""
        return [result.model for result in self.results]

    @property
    def tasks(self) -> dict[str, Measured]:
        """The tasks by name, each as the first model that has it was measured at it."""
        found: dict[str, Measured] = {}
        for result in self.results:
            found = found | {name: one for name, one in result.measured.items() if name not in found}
        return found

    def of_kind(self, kind: Kind) -> list[str]:
        """The names of the tasks of a kind."""
        return [name for name, one in self.tasks.items() if one.task.kind == kind]

    def result(self, model: str) -> Results:
        """The results of a model."""
        return self.results[self.models.index(model)]

    def value(self, model: str, task: str) -> float | None:
        """What a model reached at a task, rounded to 0.01; None where it was not measured."""
        measured = self.result(model).measured.get(task)
        return None if measured is None else measured.percent

    def mean(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean over tasks, all of them by default; None where the model lacks one, or there are none."""
        values = [self.value(model, task) for task in (self.tasks if tasks is None else tasks)]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def difference(self, model: str, task: str) -> float | None:
        """What a model has over the baseline at a task; None for the baseline itself."""
        return _minus(self.value(model, task), self.value(self.baseline, task)) if model != self.baseline else None

    def gain(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean difference to the baseline over the tasks that both have; None where there are none."""
        differences = [self.difference(model, task) for task in (self.tasks if tasks is None else tasks)]
        known = [difference for difference in differences if difference is not None]
        return sum(known) / len(known) if known else None

    @property
    def best_other(self) -> str | None:
        """The model that is shown against the baseline: the highlighted one, else the one with the best mean.

        Where tasks are missing, it is the mean of the differences to the baseline. None where nothing can be compared.
        """
        gains = {model: gain for model in self.models if (gain := self.gain(model)) is not None}
        if self.highlight is not None:
            return self.highlight if self.highlight in gains else None
        return max(gains, key=lambda model: gains[model]) if gains else None

    def is_best(self, model: str, task: str | None) -> bool:
        """Whether no model reached more at a task (None: in the mean), in tenths of a percent, as tables show them."""
        shown = {name: self.mean(name) if task is None else self.value(name, task) for name in self.models}
        values = {name: round(value, 1) for name, value in shown.items() if value is not None}
        return len(values) > 1 and model in values and values[model] == max(values.values())


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def number(value: float | None) -> str:
    """A value as tables show it, to a tenth."""
    return "-" if value is None else f"{value:.1f}"


def signed(difference: float | None) -> str:
    """A difference with its sign, to a tenth; empty for None."""
    if difference is None:
        return ""
    return f"{difference:+.1f}" if round(difference, 1) else "+0.0"
