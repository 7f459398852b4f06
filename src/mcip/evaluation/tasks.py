"""What is measured: a task is a table, a kind of retrieval or classification, and its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from mcip.core.choices import TransformName, check_choice
from mcip.core.errors import ConfigError
from mcip.evaluation.presets import PresetName

Kind: TypeAlias = Literal["i2i", "knn", "zero-shot", "t2i", "i2t", "composed"]

# How the paper's Table 1 groups its columns; image to text is not in it.
GROUPS: dict[Kind, str] = {
    "i2i": "I2I",
    "knn": "k-NN",
    "zero-shot": "zero-shot",
    "t2i": "T2I",
    "i2t": "I2T",
    "composed": "CIR",
}

# The metric that stands for a kind in tables and plots.
HEADLINE: dict[Kind, str] = {
    "i2i": "map",
    "knn": "top1",
    "zero-shot": "top1",
    "t2i": "r5",
    "i2t": "r5",
    "composed": "map_basic",
}
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "a {}.", "a photo of the {}.")


@dataclass(frozen=True)
class Task:
    """One thing to measure.

    Attributes:
        name: How tables call it.
        kind: "i2i" (image to image), "knn" (weighted k-NN), "zero-shot", "t2i" (text to image), "i2t" (image to
            text) or "composed" (image and text to image).
        data: Where the table is: what `mcip.read_table` takes; for a benchmark, the folder with the benchmarks.
        split: The rows that are queries; of all kinds but "knn" the gallery, too.
        index_data: For "knn": the table of the labelled rows that vote; `data` if not given.
        columns: Which of their columns are the table's, as in image=path,label=category.
        index_split: For "knn": the rows that vote.
        label: The column of `data` that holds the class.
        transform: How images are prepared: "model" (the model's own way) or "paper".
        exclude_self: For "i2i": whether a query is taken out of its own ranking.
        templates: For "zero-shot": sentences with {} for the class name.
        drop_first: For "i2i": whether the first item of every ranking is dropped, whatever it is.
        metric: The metric that stands for the task; that of its kind where empty.
        benchmark: The name of the benchmark that reads `data`; a table is read where it is not given.
        preset: The protocol of the benchmark: "paper" or "standard".
        column: The key of its column in the paper's Table 1, where it has one.
        limit: Measure on a seeded subsample of about so many images; on all of them if not given.
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
    index_data: str | None = None
    columns: str | None = None

    def __post_init__(self) -> None:
        check_choice(f"Task {self.name!r}: kind", self.kind, Kind)
        if not self.name.strip():
            raise ConfigError("A task has no name: give it one, by which tables call it.")
        for key, value, known in (("transform", self.transform, TransformName), ("preset", self.preset, PresetName)):
            if value is not None:
                check_choice(f"Task {self.name!r}: {key}", value, known)
        if self.kind != "knn" and (self.index_split is not None or self.index_data is not None):
            raise ConfigError(f"Task {self.name!r}: index_split and index_data are of k-NN, not of {self.kind}.")
        if self.kind == "knn" and self.benchmark is None and self.index_split is None and self.index_data is None:
            raise ConfigError(f"Task {self.name!r}: k-NN needs index_split or index_data, the rows that vote.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"Task {self.name!r}: limit is {self.limit}; it is at least 1.")
        if any("{}" not in template for template in self.templates):
            raise ConfigError(f"Task {self.name!r}: every template needs a {{}} for the class name.")

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return self.metric or HEADLINE[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """The task as JSON holds it."""
        return asdict(self) | {"templates": list(self.templates)}


_TYPES: dict[str, type] = {"exclude_self": bool, "drop_first": bool, "limit": int, "templates": list}
_OPTIONAL = {field.name for field in fields(Task) if field.default is None}


def task_from(entry: Mapping[str, Any], where: str) -> Task:
    """Make a task from a mapping.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named) or missing, or a value is not as it must be.
    """
    check_keys(entry, where)
    missing = [key for key in ("name", "kind", "data") if key not in entry]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing")
    for key, value in entry.items():
        expected = _TYPES.get(key, str)
        if not isinstance(value, expected) and not (value is None and key in _OPTIONAL):
            raise ConfigError(f"{where}: {key} is {value!r}, not of the type {expected.__name__}.")
    return Task(**{**entry, "templates": tuple(entry.get("templates", TEMPLATES))})


def check_keys(entry: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` where a key is not one of `Task`; the nearest known one is named."""
    known = [field.name for field in fields(Task)]
    for key in entry:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
