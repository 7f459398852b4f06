"""Results side by side: what each model reached at each task, against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

from mcip.core.errors import ConfigError
from mcip.evaluation.tasks import Kind
from mcip.reporting.paper import table1
from mcip.reporting.results import Measured, Results, difference_interval
from mcip.reporting.words import metric_word

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
        highlight: The name of the model that is shown against the baseline; None for `headline_model`'s rule.
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
            raise ConfigError("There are no results: give the JSON files that `mcip evaluate` wrote.")
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
        if highlight is not None and comparison._is_foreign(highlight):
            raise ConfigError(
                f"highlight: {highlight!r} is a row of the paper, but the baseline {comparison.baseline!r} was "
                "measured here: highlight a measured model, or make a row of the paper the baseline too."
            )
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
                    raise ConfigError(
                        f"Task {name!r} was not the same for {result.model!r} as for the models before it "
                        f"({', '.join(unlike) or 'data'} "
                        "differ): evaluate them with one suite, or give the tasks different names."
                    )

    @property
    def models(self) -> list[str]:
        """The names of the models, in order."""
        return [result.model for result in self.results]

    @property
    def measured_models(self) -> list[str]:
        """The names of the models that were measured, not taken from the paper."""
        return [result.model for result in self.results if not result.paper]

    @cached_property
    def tasks(self) -> dict[str, Measured]:
        """The tasks by name, each as the first model that has it was measured at it; first the paper's columns."""
        first: dict[str, Measured] = {}
        for result in self.results:
            first = {**result.measured, **first}
        names = dict.fromkeys(name for result in self.results for name in result.measured)
        place = {column["key"]: number for number, column in enumerate(table1()["columns"])}
        return {
            name: first[name] for name in sorted(names, key=lambda name: place.get(first[name].task.column, len(place)))
        }

    @property
    def common_tasks(self) -> list[str]:
        """The names of the tasks at which all measured models were measured."""
        return [
            task for task in self.tasks if all(self.value(model, task) is not None for model in self.measured_models)
        ]

    @property
    def averaged(self) -> list[str]:
        """The names of the tasks of the mean: all of them, or the paper's columns where its rows are there."""
        columns = {task for result in self.results if result.paper for task in result.measured}
        return [name for name in self.tasks if name in columns or not columns]

    def of_kind(self, kind: Kind) -> list[str]:
        """The names of the tasks of a kind."""
        return [name for name, measured in self.tasks.items() if measured.task.kind == kind]

    def metrics_of(self, tasks: Sequence[str]) -> str:
        """The names of the headline metrics of tasks, for people."""
        return " and ".join(dict.fromkeys(metric_word(self.tasks[task].headline) for task in tasks))

    def result(self, model: str) -> Results:
        """The results of a model."""
        return self.results[self.models.index(model)]

    def value(self, model: str, task: str) -> float | None:
        """What a model reached at a task, rounded to 0.01; None where it was not measured."""
        measured = self.result(model).measured.get(task)
        return None if measured is None else measured.percent

    def mean(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean over tasks, `averaged` by default; None where the model lacks one, or there are none."""
        values = [self.value(model, task) for task in (self.averaged if tasks is None else tasks)]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def difference(self, model: str, task: str) -> float | None:
        """What a model has over the baseline at a task.

        None for the baseline itself, and for the paper's models unless the baseline is one of them: what was measured
        here and what the paper prints were not measured side by side.
        """
        if model == self.baseline or self._is_foreign(model):
            return None
        value, base = self.value(model, task), self.value(self.baseline, task)
        return None if value is None or base is None else value - base

    def _is_foreign(self, model: str) -> bool:
        return self.result(model).paper and not self.result(self.baseline).paper

    def gain(self, model: str, tasks: Sequence[str] | None = None) -> float | None:
        """The mean difference to the baseline over the tasks that both have; None where there are none."""
        differences = [self.difference(model, task) for task in (self.tasks if tasks is None else tasks)]
        known = [difference for difference in differences if difference is not None]
        return sum(known) / len(known) if known else None

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
            measured, base = (self.result(name).measured.get(task) for name in (model, self.baseline))
            self._intervals[key] = None
            if measured is not None and base is not None and model != self.baseline:
                self._intervals[key] = difference_interval(measured, base)
        return self._intervals[key]

    @property
    def has_intervals(self) -> bool:
        """Whether any interval is known."""
        return any(self.interval(model, task) is not None for model in self.models for task in self.tasks)

    def in_doubt(self, model: str, task: str) -> bool:
        """Whether the interval of a difference to the baseline holds 0: other queries might turn its sign."""
        interval = self.difference_interval(model, task)
        return interval is not None and interval[0] <= 0 <= interval[1]

    @property
    def headline_model(self) -> str | None:
        """The model that is shown against the baseline, by the rule that docs/report.md states.

        It is the one with the best mean over the tasks that all measured models have, or, where there is no such task,
        with the best mean difference to the baseline; of equal ones the earlier. Unless `highlight` names another. The
        paper's models are shown only if they are named. None where nothing can be compared.
        """
        comparable = [model for model in self.measured_models if self.gain(model) is not None]
        if self.highlight is not None:
            return self.highlight if self.gain(self.highlight) is not None else None
        common = self.common_tasks
        # Sums of the same numbers in another order differ in their last bits: such means are equal.
        scores = {
            model: round((self.mean(model, common) if common else self.gain(model)) or 0.0, 6) for model in comparable
        }
        return max(scores, key=lambda model: scores[model]) if scores else None

    def best(self, tasks: Sequence[str], models: Sequence[str] | None = None) -> list[str]:
        """The models with the highest mean over tasks, in tenths of a percent, as tables show it."""
        means = {model: self.mean(model, tasks) for model in (self.models if models is None else models)}
        shown = {model: round(mean, 1) for model, mean in means.items() if mean is not None}
        return [model for model, mean in shown.items() if mean == max(shown.values())]

    def is_best(self, model: str, task: str | None) -> bool:
        """Whether no model reached more at a task (None: in the mean); never where only one model was measured."""
        tasks = self.averaged if task is None else [task]
        compared = sum(self.mean(name, tasks) is not None for name in self.models)
        return compared > 1 and model in self.best(tasks)
