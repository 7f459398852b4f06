"""The results files: one JSON per model and suite, with the values of the queries beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import atomic_write, read_json, write_json
from mcip.evaluation.suites import Suite, table1_average

# What a results file calls itself.
KIND: Final = "results"
# The keys of a task in the results file that hold what was measured, not how.
_MEASURED: Final = ("headline", "metrics", "interval", "per_query", "space")
_NOT_IN_FILE_NAMES: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_LONGEST_NAME: Final = 100
# On Windows these are devices, whatever their suffix.
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{kind}{number}" for kind in ("COM", "LPT") for number in range(10))}
)


def check_model_name(name: str) -> str:
    """The name, if it can be that of a file.

    Raises:
        ConfigError: It is empty, long, begins with a dot, is reserved, or has a character that file names do not have
            everywhere.
    """
    reserved = name.partition(".")[0].strip().upper() in _DEVICES
    if not name or len(name) > _LONGEST_NAME or name.startswith(".") or reserved or _NOT_IN_FILE_NAMES.search(name):
        raise ConfigError(
            f"A model cannot be named {name!r}: results files are named by it. Use 1 to {_LONGEST_NAME} characters, "
            'none of / \\ : * ? " < > |, the first not a dot, and no device of Windows such as CON: --model NAME=MODEL.'
        )
    return name


def results_name(model: str, suite: Suite) -> str:
    """The name of the results file of a model on a suite; no two suites, and no two presets, have the same."""
    if suite.name == "own":
        return f"{model}.json"
    name = suite.name.replace(" ", "-")
    return f"{model}.{name}.json" if suite.preset in (None, "paper") else f"{model}.{name}-{suite.preset}.json"


@dataclass(frozen=True)
class ResultsFile:
    """The results of one model on one suite.

    Attributes:
        path: Where they are.
        model: The model's name.
        source: What was loaded.
        fingerprint: Of its weights.
        suite: The suite.
        store: The folder of its embeddings.
        decode: How image files were read.
    """

    path: Path
    model: str
    source: str
    fingerprint: str
    suite: Suite
    store: Path
    decode: str = "exact"

    def known(
        self, tasks: list[dict[str, Any]], in_memory: Collection[str]
    ) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
        """What an earlier run with the same weights measured.

        What was replaced at its place, data or weights, is to be measured again.

        Args:
            tasks: What a results file says of each task beside what was measured.
            in_memory: The names of tables that were given as objects and have no place.

        Returns:
            The entry of each task, None for those that were not measured, and the entries of benchmarks of the suite
            whose data are not there any more.

        Raises:
            ArtefactError: The file holds results of another model, suite, or place of the data.
        """
        if not self.path.exists():
            return [None] * len(tasks), []
        earlier = read_json(self.path)
        if not isinstance(earlier, dict) or earlier.get("kind") != KIND:
            raise ArtefactError(f"{self.path} is not a results file. Choose another folder.")
        try:
            self._refuse_others(earlier, tasks, in_memory)
            entries = {_key(entry): entry for entry in earlier["tasks"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"{self.path} is damaged ({error!r}). Remove it and evaluate again.") from error
        if earlier["fingerprint"] != self.fingerprint:
            entries = {}
        gone = {one["benchmark"] for one in self.suite.missing} - {None}
        kept = [entry for entry in entries.values() if entry["benchmark"] in gone]
        # The data may lie elsewhere now.
        return [entries[key] | task if (key := _key(task)) in entries else None for task in tasks], kept

    def _refuse_others(
        self, earlier: Mapping[str, Any], tasks: list[dict[str, Any]], in_memory: Collection[str]
    ) -> None:
        now = {"model": self.model, "suite": self.suite.name, "preset": self.suite.preset}
        for what, name in now.items():
            if earlier[what] != name:
                raise self._refusal(f"the {what} {earlier[what]}")
        if earlier["source"] != self.source and earlier["fingerprint"] != self.fingerprint:
            raise self._refusal(f"the model {earlier['source']}")
        hashes = {task["name"]: task["data_hash"] for task in tasks}
        places = {task[key] for task in tasks for key in ("data", "index_data")} - set(in_memory)
        for entry in earlier["tasks"]:
            moved = hashes.get(entry["name"]) == entry["data_hash"]
            if not moved and entry["data"] not in places:
                raise self._refusal(f"{entry['data']} with other content")

    def _refusal(self, what: str) -> ArtefactError:
        return ArtefactError(
            f"{self.path} holds results of {what}, which would be replaced. Choose another folder (--out), name the "
            "model otherwise (--model NAME=MODEL), or remove that file."
        )

    def save_values(self, task: dict[str, Any], values: NDArray[np.float64]) -> str:
        """Write the values of the queries of a task; their path from the results file's folder."""
        name = hashlib.sha256(repr(task).encode()).hexdigest()[:16]
        relative = Path(f"{self.path.stem}.per-query") / f"{name}.npy"
        with atomic_write(self.path.parent / relative) as temporary, temporary.open("wb") as file:
            np.save(file, values.astype(np.float32), allow_pickle=False)
        return relative.as_posix()

    def write(self, entries: Sequence[dict[str, Any] | None]) -> None:
        """Write what has been measured so far."""
        tasks = [entry for entry in entries if entry is not None]
        measured = {entry["benchmark"] for entry in tasks} - {None}
        missing = [dict(one) for one in self.suite.missing if one["benchmark"] not in measured]
        columns = {entry["column"]: entry["metrics"][entry["headline"]] for entry in tasks if entry["column"]}
        write_json(
            self.path,
            {
                "kind": KIND, "model": self.model, "source": self.source, "fingerprint": self.fingerprint,
                "suite": self.suite.name, "preset": self.suite.preset, "embeddings": str(self.store),
                "decode": self.decode, "tasks": tasks, "missing": missing, "average": table1_average(columns),
            },
        )  # fmt: skip


def _key(entry: Mapping[str, Any]) -> str:
    return repr(
        sorted((key, value) for key, value in entry.items() if key not in (*_MEASURED, "data", "index_data", "columns"))
    )
