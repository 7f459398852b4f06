"""What is measured: a task is a table, a kind of question, and the protocol by which it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import yaml

from mcip.core.choices import TransformName
from mcip.core.errors import ConfigError, DataError
from mcip.data import read_table
from mcip.evaluation.presets import PresetName

Kind: TypeAlias = Literal["i2i", "knn", "zero-shot", "t2i", "i2t"]

# How the paper's Table 1 groups its columns; image to text is not in it.
GROUPS: dict[Kind, str] = {"i2i": "I2I", "knn": "k-NN", "zero-shot": "zero-shot", "t2i": "T2I", "i2t": "I2T"}

# The metric that stands for a kind in tables and plots.
HEADLINE: dict[Kind, str] = {"i2i": "map", "knn": "top1", "zero-shot": "top1", "t2i": "r5", "i2t": "r5"}
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "a {}.", "a photo of the {}.")


@dataclass(frozen=True)
class Task:
    """One thing to measure.

    Attributes:
        name: How tables call it.
        kind: "i2i" (image to image), "knn" (weighted k-NN), "zero-shot", "t2i" (text to image) or "i2t" (image to
            text).
        data: Where the table is: what `mcip.data.read_table` takes; for a benchmark, what `Places` takes.
        split: The rows that are queries (and, but for "knn", the gallery).
        index_split: For "knn": the labelled rows that vote.
        label: The column of `data` that holds the class.
        transform: "model" or "paper".
        exclude_self: For "i2i": whether a query is taken out of its own ranking.
        templates: For "zero-shot": sentences with {} for the class name.
        drop_first: For "i2i": whether the first item of every ranking is dropped, whatever it is.
        metric: The metric that stands for the task; that of its kind where empty.
        benchmark: The name of the benchmark that reads `data`; None for a table.
        preset: By which protocol the benchmark is asked.
        column: The key of its column in the paper's Table 1, where it has one.
        limit: Measure on a seeded subsample of about so many images; on all of them for None.
    """

    name: str
    kind: Kind
    data: str
    split: str | None = None
    index_split: str | None = None
    label: str = "label"
    transform: TransformName = "model"
    exclude_self: bool = True
    templates: tuple[str, ...] = TEMPLATES
    drop_first: bool = False
    metric: str = ""
    benchmark: str | None = None
    preset: PresetName | None = None
    column: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"Task {self.name!r}: kind is {self.kind!r}; it is one of {', '.join(get_args(Kind))}.")
        if self.kind == "knn" and self.benchmark is None and self.index_split is None:
            raise ConfigError(f"Task {self.name!r}: k-NN needs index_split, the rows that vote.")
        if any("{}" not in template for template in self.templates):
            raise ConfigError(f"Task {self.name!r}: every template needs a {{}} for the class name.")

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return self.metric or HEADLINE[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """The task as JSON holds it."""
        return asdict(self) | {"templates": list(self.templates)}


def task_from(entry: Mapping[str, Any], where: str) -> Task:
    """Make a task from a mapping.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named) or missing.
    """
    known = [field.name for field in fields(Task)]
    for key in entry:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    missing = [key for key in ("name", "kind", "data") if key not in entry]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing")
    return Task(**{**entry, "templates": tuple(entry.get("templates", TEMPLATES))})


def read_suite(path: str | Path) -> list[Task]:
    """Read tasks from a YAML file: a list of mappings with the keys of `Task`.

    Raises:
        ConfigError: The file is missing, is no list of tasks, or names a task twice.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"There is no suite {path}: give 'own', or a YAML file with a list of tasks.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path} must be a list of tasks, each with name, kind and data.")
    tasks = [task_from(entry, f"{path}, task {number}") for number, entry in enumerate(entries, 1)]
    names = [task.name for task in tasks]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"{path} has two tasks with the name {sorted(twice)[0]!r}.")
    return tasks


def own_tasks(data: str, split: str | None = None, index_split: str | None = None) -> list[Task]:
    """The tasks that a table of one's own allows: by its labels, its captions and its splits.

    Raises:
        DataError: The table has neither labels nor captions.
    """
    table = read_table(data, split=split)
    labels = [label for label in table.labels if label is not None]
    tasks = []
    if len(set(labels)) < len(labels):
        tasks.append(Task("i2i", "i2i", data, split))
    if labels and index_split is not None:
        tasks.append(Task("knn", "knn", data, split, index_split))
    if len(set(labels)) > 1:
        tasks.append(Task("zero-shot", "zero-shot", data, split))
    if any(table.captions):
        tasks += [Task("t2i", "t2i", data, split), Task("i2t", "i2t", data, split)]
    if not tasks:
        raise DataError(f"{table.name} has neither labels nor captions: there is nothing to evaluate.")
    return tasks
