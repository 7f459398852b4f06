"""Results compared: what each model reached at each task, against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from mcip.core.errors import ConfigError
from mcip.evaluation.tasks import Kind
from mcip.reporting.paper import table1
from mcip.reporting.results import Measured, Results, difference_interval

KIND_WORDS: dict[Kind, str] = {
    "i2i": "image to image", "knn": "k-NN", "zero-shot": "zero-shot", "t2i": "text to image", "i2t": "image to text",
}  # fmt: skip
METRIC_WORDS = {
    "map": "mAP", "map@1000": "mAP@1k", "top1": "top-1", "top5": "top-5", "r1": "R@1", "r5": "R@5", "r10": "R@10",
}  # fmt: skip
# What two measurements must have in common to stand in one column; where the data lies may differ.
_PROTOCOL = (
    "kind", "split", "index_split", "label", "transform", "exclude_self", "templates", "drop_first", "metric",
    "benchmark", "preset", "limit",
)  # fmt: skip


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
    _intervals: dict[tuple[str, str], tuple[float, float] | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
                if other is None or result.paper:
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
        """The tasks by name, each as the first model that has it was measured at it; first the paper's columns."""
        found: dict[str, Measured] = {}
        for result in self.results:
            found = found | {name: one for name, one in result.measured.items() if name not in found}
        place = {column["key"]: number for number, column in enumerate(table1()["columns"])}
        order = sorted(found, key=lambda name: place.get(found[name].task.column, len(place)))
        return {name: found[name] for name in order}

    @property
    def own(self) -> list[str]:
        """The names of the models that were measured, not taken from the paper."""
        return [result.model for result in self.results if not result.paper]

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

    @property
    def averaged(self) -> list[str]:
        """The tasks of the mean: all of them, or the paper's columns where its rows are there."""
        columns = {task for result in self.results if result.paper for task in result.measured}
        return [name for name in self.tasks if name in columns or not columns]

    def mean(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean over tasks, `averaged` by default; None where the model lacks one, or there are none."""
        values = [self.value(model, task) for task in (self.averaged if tasks is None else tasks)]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def difference(self, model: str, task: str) -> float | None:
        """What a model has over the baseline at a task; None for the baseline itself."""
        return _minus(self.value(model, task), self.value(self.baseline, task)) if model != self.baseline else None

    def interval(self, model: str, task: str) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of what a model reached at a task, in percent; None where it is not known."""
        measured = self.result(model).measured.get(task)
        return None if measured is None else measured.percent_interval

    def difference_interval(self, model: str, task: str) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of a difference to the baseline, in points, over the same queries.

        None for the baseline itself, and where the values of the queries were not kept.
        """
        key = (model, task)
        if key not in self._intervals:
            one, other = (self.result(name).measured.get(task) for name in (model, self.baseline))
            self._intervals[key] = None
            if one is not None and other is not None and model != self.baseline:
                self._intervals[key] = difference_interval(one, other)
        return self._intervals[key]

    def in_doubt(self, model: str, task: str) -> bool:
        """Whether the interval of a difference to the baseline holds 0: other queries might turn its sign."""
        interval = self.difference_interval(model, task)
        return interval is not None and interval[0] <= 0 <= interval[1]

    def gain(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean difference to the baseline over the tasks that both have; None where there are none."""
        differences = [self.difference(model, task) for task in (self.tasks if tasks is None else tasks)]
        known = [difference for difference in differences if difference is not None]
        return sum(known) / len(known) if known else None

    @property
    def best_other(self) -> str | None:
        """The model that is shown against the baseline: the highlighted one, else the one with the best mean.

        The paper's models are shown only if asked for. Where tasks are missing, it is the mean of the differences to
        the baseline. None where nothing can be compared.
        """
        gains = {model: gain for model in self.own if (gain := self.gain(model)) is not None}
        if self.highlight is not None:
            return self.highlight if self.gain(self.highlight) is not None else None
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
