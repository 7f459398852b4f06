"""Results files: what each model reached at each task, as `mcip evaluate` wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import read_json
from mcip.evaluation.results_file import KIND
from mcip.evaluation.tasks import Task, task_from
from mcip.metrics import bootstrap_interval

_TASK_KEYS = {key.name for key in fields(Task)}


@dataclass(frozen=True)
class Measured:
    """What one model reached at one task.

    Attributes:
        task: The task.
        data_hash: Identifies the rows it was measured on.
        headline: The metric that stands for the task.
        metrics: All its metrics, as shares from 0 to 1.
        interval: The 95 % bootstrap interval of the headline metric, in shares; None where it is not known.
        per_query: The file with the headline metric's value for each query; None where there is none.
        official: Whether the data have the numbers of the official release; None for what is no benchmark.
        caveats: How it was measured otherwise than in print, in words: on data that are not the official release, by
            another protocol, on a subsample.
        space: How images and captions lie in the joint space: `modality_gap`, `probe_accuracy` and `alignment`, as
            `mcip.evaluation.measure.joint_space` gives them; empty for tasks without captions.
        embedding: How the gallery was stored, see `mcip.embeddings.compact.Compact`.
    """

    task: Task
    data_hash: str
    headline: str
    metrics: Mapping[str, float]
    interval: tuple[float, float] | None = None
    per_query: Path | None = None
    official: bool | None = None
    caveats: tuple[str, ...] = ()
    space: Mapping[str, float] = field(default_factory=dict)
    embedding: str = "float32"

    @property
    def percent(self) -> float | None:
        """The headline metric in percent, rounded to 0.01; None where it is missing or not a number."""
        value = self.metrics.get(self.headline)
        return None if value is None or not math.isfinite(value) else round(100 * value, 2)

    @property
    def percent_interval(self) -> tuple[float, float] | None:
        """The interval in percent; None where it is not known."""
        if self.interval is None or not all(map(math.isfinite, self.interval)):
            return None
        return 100 * self.interval[0], 100 * self.interval[1]

    @property
    def has_values(self) -> bool:
        """Whether the values of its queries were kept."""
        return self.per_query is not None and self.per_query.is_file()

    def values(self) -> NDArray[np.float32]:
        """The headline metric's value for each query, shares, shape (Q,); NaN for queries that have none.

        Raises:
            ArtefactError: They were not kept, or are damaged.
        """
        if self.per_query is None or not self.has_values:
            where = f" ({self.per_query})" if self.per_query else ""
            raise ArtefactError(f"The values of the queries of {self.task.name} are not there{where}. Evaluate again.")
        try:
            values: NDArray[np.float32] = np.load(self.per_query, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ArtefactError(
                f"{self.per_query} is cut off or damaged ({error}). Remove the results and evaluate again."
            ) from error
        return values


@dataclass(frozen=True)
class Results:
    """One model's results.

    Attributes:
        model: The name it was evaluated by.
        source: What was loaded.
        fingerprint: Of its weights.
        suite: The suite it was measured on.
        stores: Folders in which its embeddings may be.
        measured: By the task's name.
        paper: Whether these are numbers printed in the paper, not measured here.
        note: What a reader must know about them.
        missing: What the suite has but was not measured, each with the reason.
        preset: The protocol of the suite's benchmarks; None where it has none, or several.
        average: The paper's AVG, a share; None unless all of its columns were measured.
        decode: How image files were read, "exact" or "fast".
    """

    model: str
    source: str
    fingerprint: str
    suite: str
    stores: tuple[Path, ...]
    measured: Mapping[str, Measured]
    paper: bool = False
    note: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    preset: str | None = None
    average: float | None = None
    decode: str = "exact"


def read_results(path: str | Path) -> Results:
    """Read a file that `mcip evaluate` wrote.

    Raises:
        ArtefactError: It is missing, or something else.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ArtefactError(f"{path} is not a results file: give the JSON files that `mcip evaluate` wrote.")
    try:
        measured = [_measured(entry, path) for entry in content["tasks"]]
        return Results(
            content["model"], content["source"], content["fingerprint"], content["suite"],
            (Path(content["embeddings"]), path.parent / "embeddings"), {one.task.name: one for one in measured},
            missing=tuple((one["title"], one["reason"]) for one in content.get("missing", ())),
            preset=content.get("preset"), average=content.get("average"),
            decode=content.get("decode", "exact"),
        )  # fmt: skip
    except KeyError as error:
        raise ArtefactError(f"{path} has no {error}: evaluate the model again.") from error
    except (TypeError, AttributeError, ConfigError) as error:
        raise ArtefactError(f"{path} is damaged ({error}): remove it and evaluate the model again.") from error


def _measured(entry: dict[str, Any], path: Path) -> Measured:
    task = task_from({key: value for key, value in entry.items() if key in _TASK_KEYS}, str(path))
    interval, per_query = entry.get("interval"), entry.get("per_query")
    return Measured(
        task, entry["data_hash"], entry["headline"], entry["metrics"],
        None if interval is None else (interval[0], interval[1]),
        None if per_query is None else path.parent / per_query, entry.get("official_counts"),
        tuple(entry.get("caveats", ())), entry.get("space", {}), entry.get("embedding", "float32"),
    )  # fmt: skip


def joined(results: Sequence[Results]) -> list[Results]:
    """One entry per model: the tasks of its files together, those of several suites for instance.

    Raises:
        ConfigError: Two files with one model's name are of different weights, or have a task in common.
    """
    found: dict[str, Results] = {}
    for one in results:
        other = found.setdefault(one.model, one)
        if other is one:
            continue
        common = sorted(set(other.measured) & set(one.measured))
        if other.fingerprint != one.fingerprint or common:
            why = f"both have the task {common[0]!r}" if common else "of different weights"
            raise ConfigError(f"Two results files are of a model {one.model!r}, {why}: evaluate under different names.")
        suite = ", ".join(dict.fromkeys([other.suite, one.suite]))
        found[one.model] = replace(
            other,
            suite=suite,
            stores=(*other.stores, *one.stores),
            measured={**other.measured, **one.measured},
            missing=(*other.missing, *one.missing),
        )
    return list(found.values())


def difference_interval(one: Measured, other: Measured) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the difference of two models' means, query by query, in points.

    None where the values of the queries were not kept, or are of different queries.
    """
    if one.data_hash != other.data_hash or not (one.has_values and other.has_values):
        return None
    values, baseline = one.values(), other.values()
    if values.shape != baseline.shape:
        return None
    low, high = bootstrap_interval(values.astype(np.float64) - baseline)
    return (100 * low, 100 * high) if math.isfinite(low) else None
