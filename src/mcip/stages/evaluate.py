"""Evaluate models: image to image, k-NN, zero-shot, text to image and image to text, on one embedding per image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcip import models
from mcip.core.artefacts import atomic_write, read_json, write_json
from mcip.core.choices import Precision
from mcip.core.device import pick_device
from mcip.core.errors import ConfigError
from mcip.core.progress import console
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.encoders import Session
from mcip.evaluation.measure import data_hash, measure
from mcip.evaluation.presets import PresetName
from mcip.evaluation.suites import TABLE1, Suite, find_suite, table1_average
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import GROUPS, Task
from mcip.reporting.comparison import Comparison
from mcip.reporting.results import RESULTS, read_results
from mcip.reporting.table import as_text

# All metrics are shares from 0 to 1; tables show them in percent.
_UNITS = "share"
# The keys of a task in the results file that hold what was found, not what was asked.
_FOUND = ("headline", "metrics", "interval", "per_query")


def evaluate(
    model: list[str],
    out: Path,
    *,
    data: str | None = None,
    suite: str = "own",
    preset: PresetName = "paper",
    split: str | None = None,
    index_split: str | None = None,
    allow_counts: bool = False,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> list[Path]:
    """Measure models on a suite of tasks and write one results file per model and suite.

    Embeddings are kept in `out`/embeddings and results as soon as they are there: a second run measures only what is
    missing. Benchmarks that are not in `data` are named and left out.

    Args:
        model: Models as NAME=MODEL, or just MODEL; MODEL is what `mcip.load` takes.
        out: The folder of the results, one JSON per model and suite.
        data: The table to measure on (suite "own"), or the folder with a folder for each benchmark; docs/evaluation.md
            shows the layouts.
        suite: "own", which asks all that the table allows; "table1", the 14 columns of the paper; "extended", all
            benchmarks; "quick", a seeded subsample of table1; the name of one benchmark; or a YAML file with a list of
            tasks.
        preset: The protocol of the benchmarks: the paper's, or the standard one of each.
        split: For "own": the rows that are queries and gallery.
        index_split: For "own": the rows that vote in k-NN.
        allow_counts: Measure benchmarks that have not as many images as the official release too; the results say so.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The results files, in the order of the models.

    Raises:
        ConfigError: The suite cannot be read, or two models have the same name.
        DataError: A benchmark is not the official release.
    """
    named = dict(_named(model))
    return measure_models(
        named, find_suite(suite, data, preset, split, index_split), Path(out), allow_counts=allow_counts,
        batch_size=batch_size, workers=workers, device=device, precision=precision, max_unreadable=max_unreadable,
    )  # fmt: skip


def measure_models(
    named: dict[str, str],
    tasks: list[Task] | Suite,
    out: Path,
    suite: str = "own",
    *,
    allow_counts: bool = False,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> list[Path]:
    """Measure each of the named models on each task, under the name `suite` unless it is one; see `evaluate`."""
    sources = Sources()
    asked_for = (tasks if isinstance(tasks, Suite) else Suite(suite, tasks)).present(sources)
    # All data are read and checked before anything is measured.
    asked = [_asked(task, sources, allow_counts) for task in asked_for.tasks]
    paths = []
    for name, source in named.items():
        loaded = models.load(source, device=str(pick_device(device)))
        session = Session(loaded, out / "embeddings", batch_size, workers, precision, max_unreadable, sources)
        path = out / results_name(name, asked_for)
        known = _known(path, loaded.fingerprint)
        entries = [known.get(repr(one)) for one in asked]
        for number, task in enumerate(asked_for.tasks):
            if entries[number] is None:
                entries[number] = {**asked[number], **_measured(session, task, path, repr(asked[number]))}
                _write(path, name, source, asked_for, session, entries)
        _write(path, name, source, asked_for, session, entries)
        paths.append(path)
    _show(paths, asked_for, out)
    return paths


def results_name(model: str, suite: Suite) -> str:
    """The name of the results file of a model on a suite; no two suites, and no two presets, have the same."""
    if suite.name == "own":
        return f"{model}.json"
    name = suite.name.replace(" ", "-")
    return f"{model}.{name}.json" if suite.preset in (None, "paper") else f"{model}.{name}-{suite.preset}.json"


def _asked(task: Task, sources: Sources, allow_counts: bool) -> dict[str, Any]:
    """What a results file says of a task beside its metrics; a benchmark's numbers are checked."""
    facts: dict[str, Any] = {"group": GROUPS[task.kind], "units": _UNITS}
    if task.benchmark is not None:
        whole = sources.whole(task)
        benchmark = BENCHMARKS[task.benchmark]
        if not allow_counts:
            benchmark.check(whole)
        facts |= {"counts": whole.counts, "official_counts": not benchmark.wrong_counts(whole)}
    return {**task.as_dict(), **facts, "data_hash": data_hash(task, sources)}


def _show(paths: list[Path], suite: Suite, out: Path) -> None:
    """Print the table, what is missing, and where the results are."""
    terminal = Console()
    terminal.print(as_text(Comparison.of([read_results(path) for path in paths])))
    if any(task.column for task in suite.tasks) and suite.name == "table1":
        for path in paths:
            content = read_json(path)
            average = content["average"]
            lacking = len(TABLE1) - sum(entry["column"] in TABLE1 for entry in content["tasks"])
            shown = f"{100 * average:.1f}" if average is not None else f"needs all 14 columns, {lacking} are missing"
            terminal.print(f"{content['model']}: AVG {shown}", markup=False)
    if suite.missing:
        table = Table("missing", "why")
        for one in suite.missing:
            table.add_row(Text(one["title"]), Text(one["reason"]))
        terminal.print(table)
    console.print(f"Results are in {out}.", markup=False)


def _named(entries: list[str]) -> list[tuple[str, str]]:
    if not entries:
        raise ConfigError("There is no model to evaluate: pass --model NAME=MODEL, once for each.")
    pairs = []
    for entry in entries:
        name, separator, source = entry.partition("=")
        pairs.append((name, source) if separator else (Path(entry).parent.name or entry.replace("/", "-"), entry))
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two models have the same name: {', '.join(names)}. Name them: --model NAME=MODEL.")
    return pairs


def _measured(session: Session, task: Task, results: Path, key: str) -> dict[str, Any]:
    """Measure a task; what the results file holds of it. The values of the queries lie beside that file."""
    found = measure(session, task)
    per_query = Path(f"{results.stem}.per-query") / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    with atomic_write(results.parent / per_query) as temporary, temporary.open("wb") as file:
        np.save(file, found.per_query.astype(np.float32), allow_pickle=False)
    return {
        "headline": task.headline, "metrics": found.metrics, "interval": list(found.interval),
        "per_query": str(per_query),
    }  # fmt: skip


def _write(
    path: Path, name: str, source: str, suite: Suite, session: Session, entries: list[dict[str, Any] | None]
) -> None:
    """Write what has been measured so far."""
    tasks = [entry for entry in entries if entry is not None]
    columns: Mapping[str, float] = {
        entry["column"]: entry["metrics"][entry["headline"]] for entry in tasks if entry["column"] is not None
    }
    write_json(
        path,
        {
            "kind": RESULTS, "model": name, "source": source, "fingerprint": session.model.fingerprint,
            "suite": suite.name, "preset": suite.preset, "embeddings": str(session.store), "tasks": tasks,
            "missing": [dict(one) for one in suite.missing], "average": table1_average(columns),
        },
    )  # fmt: skip


def _known(path: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """The entries of an earlier run with the same weights, by their task."""
    if not path.exists():
        return {}
    earlier = read_json(path)
    if earlier.get("kind") != RESULTS or earlier.get("fingerprint") != fingerprint:
        return {}
    return {
        repr({key: value for key, value in entry.items() if key not in _FOUND}): entry for entry in earlier["tasks"]
    }
