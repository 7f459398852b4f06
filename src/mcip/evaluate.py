"""Evaluate models: image to image, k-NN, zero-shot, text to image and image to text, on one embedding per image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mcip import models
from mcip.artefacts import atomic_write, read_json, write_json
from mcip.device import Precision, pick_device
from mcip.errors import ConfigError
from mcip.evaluation.measure import Session, data_hash, measure
from mcip.evaluation.tasks import Task, own_tasks, read_suite
from mcip.progress import console
from mcip.reporting.comparison import RESULTS, Comparison, read_results
from mcip.reporting.table import as_text

# The keys of a task in the results file that hold what was found, not what was asked.
_FOUND = ("headline", "metrics", "interval", "per_query")


def evaluate(
    model: list[str],
    out: Path,
    *,
    data: str | None = None,
    suite: str = "own",
    split: str | None = None,
    index_split: str | None = None,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> list[Path]:
    """Measure models on a suite of tasks and write one results file per model.

    Embeddings are kept in `out`/embeddings and results as soon as they are there: a second run measures only what is
    missing.

    Args:
        model: Models as NAME=MODEL, or just MODEL; MODEL is what `mcip.load` takes.
        out: The folder of the results, one JSON per model.
        data: For the suite "own": the table to measure on.
        suite: "own", which asks all that the table allows, or a YAML file with a list of tasks.
        split: For "own": the rows that are queries and gallery.
        index_split: For "own": the rows that vote in k-NN.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The results files, in the order of the models.

    Raises:
        ConfigError: The suite cannot be read, or two models have the same name.
    """
    if suite == "own":
        if data is None:
            raise ConfigError("The suite 'own' needs a table: pass --data.")
        tasks = own_tasks(data, split, index_split)
    else:
        tasks = read_suite(suite)
    return measure_models(
        dict(_named(model)), tasks, Path(out), suite, batch_size=batch_size, workers=workers, device=device,
        precision=precision, max_unreadable=max_unreadable,
    )  # fmt: skip


def measure_models(
    named: dict[str, str],
    tasks: list[Task],
    out: Path,
    suite: str = "own",
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> list[Path]:
    """Measure each of the named models on each task; see `evaluate`."""
    paths = []
    for name, source in named.items():
        loaded = models.load(source, device=str(pick_device(device)))
        session = Session(loaded, out / "embeddings", batch_size, workers, precision, max_unreadable)
        path = out / f"{name}.json"
        known = _known(path, loaded.fingerprint)
        asked = [{**task.as_dict(), "data_hash": data_hash(task)} for task in tasks]
        entries = [known.get(repr(one)) for one in asked]
        for number, task in enumerate(tasks):
            if entries[number] is None:
                entries[number] = {**asked[number], **_measured(session, task, path, repr(asked[number]))}
                _write(path, name, source, suite, session, entries)
        _write(path, name, source, suite, session, entries)
        paths.append(path)
    Console().print(as_text(Comparison.of([read_results(path) for path in paths])))
    console.print(f"Results are in {out}.", markup=False)
    return paths


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
    path: Path, name: str, source: str, suite: str, session: Session, entries: list[dict[str, Any] | None]
) -> None:
    """Write what has been measured so far."""
    write_json(
        path,
        {
            "kind": RESULTS, "model": name, "source": source, "fingerprint": session.model.fingerprint, "suite": suite,
            "embeddings": str(session.store), "tasks": [entry for entry in entries if entry is not None],
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
