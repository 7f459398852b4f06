"""Measure several models on the tasks of a suite, each with a results file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mcip import models
from mcip.core.choices import Decode, Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.processes import alone, processes
from mcip.data import Table
from mcip.embeddings.compact import Compact
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.encoders import Session
from mcip.evaluation.measure import embed_data, measure, tables_of
from mcip.evaluation.results_file import ResultsFile, check_model_name, results_name
from mcip.evaluation.suites import Suite
from mcip.evaluation.task_data import Sources
from mcip.evaluation.tasks import GROUPS, Task

# All metrics are shares from 0 to 1; tables show them in percent.
_UNITS = "share"


def measure_models(
    named: Mapping[str, str | os.PathLike[str] | models.Model],
    tasks: list[Task] | Suite,
    out: Path,
    suite: str = "own",
    *,
    sources: Sources | None = None,
    allow_counts: bool = False,
    decode: Decode = "exact",
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
    embeddings: Sequence[Compact] = (Compact(),),
) -> list[Path]:
    """Measure each of the named models on each task.

    Several processes embed together, then each measures one task at a time.

    Args:
        named: What `mcip.load` takes, or loaded models, by name.
        tasks: The tasks, or a suite of them.
        out: The folder of the results and embeddings.
        suite: How the results call a list of tasks.
        sources: Reads the data; it may hold tables that have been read.
        allow_counts: See `mcip.evaluate`, as for the parameters that follow.
        decode: How image files are read.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images.
        device: Where models are loaded to; loaded ones stay where they are.
        precision: Of the forward passes.
        max_unreadable: The share of images that may be unreadable.
        embeddings: How galleries are stored; each model is measured in each way, under its name with the way behind it.

    Returns:
        The results files, in the order of the models, and of `embeddings` for each.

    Raises:
        ConfigError: A name cannot be that of a file.
        DataError: A benchmark is not the official release.
        ArtefactError: A results file is there with other results.
    """
    for name in named:
        check_model_name(name)
    sources = sources or Sources()
    team = processes()
    present = (tasks if isinstance(tasks, Suite) else Suite(suite, tasks)).present(sources)
    # All data are read and checked before anything is measured.
    described = team.first_then_all(lambda: [_describe(task, sources, allow_counts, decode) for task in present.tasks])
    wholes = _wholes(present.tasks, sources)
    paths, fingerprint_by_tower = [], dict[str, str]()
    for name, source in named.items():
        model = team.first_then_all(partial(_loaded, source, device))
        same_tower = None
        if len(named) > 1:
            # Re-A leaves the image tower as it is: what was embedded by the same tower is not embedded again.
            same_tower = fingerprint_by_tower.setdefault(model.embeds_images_as(), model.fingerprint)
        session = Session(
            model, out / "embeddings", batch_size, workers, precision, max_unreadable, sources, decode,
            None if same_tower == model.fingerprint else same_tower, wholes,
        )  # fmt: skip
        for compact in embeddings:
            full_name = check_model_name(f"{name} {compact}") if compact.changes else name
            path = out / results_name(full_name, present)
            results = ResultsFile(path, full_name, model.source, model.fingerprint, present, session.store, decode)
            _measure_model(session, compact, results, [_stored_as(compact, entry) for entry in described])
            paths.append(path)
    return paths


def _wholes(tasks: Sequence[Task], sources: Sources) -> dict[tuple[str, TransformName], Table]:
    """The whole table by the images of a part of it, and the transform, where tasks take both."""
    wholes, parts = {}, []
    for task in tasks:
        if task.benchmark is not None or task.limit is not None:
            continue
        places = [task.index_data or task.data, task.data] if task.kind == "knn" else [task.data]
        splits = [task.index_split, task.split] if task.kind == "knn" else [task.split]
        for data, split, table in zip(places, splits, tables_of(sources.data(task)), strict=True):
            place = (data, task.columns, task.transform)
            if split is None:
                wholes[place] = table
            else:
                parts.append((place, table))
    return {
        (part.images_fingerprint, place[2]): wholes[place]
        for place, part in parts if place in wholes and len(part) < len(wholes[place])
    }  # fmt: skip


def _measure_model(session: Session, compact: Compact, results: ResultsFile, described: list[dict[str, Any]]) -> None:
    """Measure a model on all tasks that its results file lacks."""
    team, tasks = processes(), results.suite.tasks
    entries, kept = team.by_first(partial(results.known, described, session.sources.tables))
    left = [number for number, entry in enumerate(entries) if entry is None]
    if team.several:
        for number in left:
            embed_data(session, tasks[number])
    for start in range(0, len(left), team.count):
        found = None
        if start + team.rank < len(left):
            number = left[start + team.rank]
            with alone():
                found = number, _measured(session, tasks[number], results, described[number], compact)
        for number, entry in filter(None, team.gather_json(found)):
            entries[number] = entry
        team.by_first(partial(results.write, [*entries, *kept]))
    team.by_first(partial(results.write, [*entries, *kept]))


def _stored_as(compact: Compact, description: dict[str, Any]) -> dict[str, Any]:
    """What a results file says of a task whose gallery is stored in fewer bytes."""
    if not compact.changes:
        return description
    caveats = [*description["caveats"], f"with a gallery stored as {compact}"]
    return {**description, "embedding": str(compact), "caveats": caveats}


def _loaded(source: str | os.PathLike[str] | models.Model, device: str) -> models.Model:
    return source if isinstance(source, models.Model) else models.load(source, device=str(pick_device(device)))


def _describe(task: Task, sources: Sources, allow_counts: bool, decode: Decode) -> dict[str, Any]:
    """What a results file says of a task beside what was measured; a benchmark's counts are checked."""
    facts: dict[str, Any] = {"group": GROUPS[task.kind], "units": _UNITS}
    caveats = []
    if task.benchmark is not None:
        whole, benchmark = sources.whole(task), BENCHMARKS[task.benchmark]
        if not allow_counts:
            benchmark.check(whole)
        wrong = benchmark.wrong_counts(whole)
        facts |= {"counts": whole.counts, "official_counts": not wrong}
        caveats += [f"not the official release: {'; '.join(wrong)}"] if wrong else []
    if task.column is not None and task.preset != "paper":
        caveats.append(f"by the preset {task.preset!r} instead of the paper's")
    if decode == "fast":
        caveats.append("on images read with --decode fast, not to open_clip's pixels")
    if task.limit is not None:
        caveats.append(f"on a subsample of about {task.limit:,} images")
    return {**task.as_dict(), **facts, "caveats": caveats, "data_hash": sources.data(task).fingerprint}


def _measured(
    session: Session, task: Task, results: ResultsFile, description: dict[str, Any], compact: Compact
) -> dict[str, Any]:
    """Measure a task; the task's entry in the results file."""
    found = measure(session, task, compact if compact.changes else None)
    return {
        **description, "headline": task.headline, "metrics": found.metrics, "interval": list(found.interval),
        "per_query": results.save_values(description, found.per_query), "space": found.space,
    }  # fmt: skip
