"""Evaluate models: image to image, k-NN, zero-shot, text to image and image to text, on one embedding per image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TextTable

from mcip import models
from mcip.artefacts import read_json, write_json
from mcip.device import Precision, pick_device
from mcip.errors import ConfigError
from mcip.evaluation.measure import Session, data_hash, measure
from mcip.evaluation.tasks import Task, own_tasks, read_suite
from mcip.progress import console

RESULTS = "results"


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

    Embeddings are kept in `out`/embeddings and results as soon as they are there: a second run measures only what is missing.

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
        results: dict[str, Any] = {
            "kind": RESULTS, "model": name, "source": source, "fingerprint": loaded.fingerprint, "suite": suite,
            "embeddings": str(session.store), "tasks": [],
        }  # fmt: skip
        for task in tasks:
            asked = {**task.as_dict(), "data_hash": data_hash(task)}
            entry = known.get(repr(asked))
            if entry is None:
                entry = {**asked, "headline": task.headline, "metrics": measure(session, task)}
            results["tasks"].append(entry)
            write_json(path, results)
        paths.append(path)
    show(paths)
    return paths


def _named(entries: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for entry in entries:
        name, separator, source = entry.partition("=")
        pairs.append((name, source) if separator else (Path(entry).parent.name or entry.replace("/", "-"), entry))
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ConfigError(f"Two models have the same name: {', '.join(names)}. Name them: --model NAME=MODEL.")
    return pairs


def _known(path: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """The entries of an earlier run with the same weights, by their task."""
    if not path.exists():
        return {}
    earlier = read_json(path)
    if earlier.get("kind") != RESULTS or earlier.get("fingerprint") != fingerprint:
        return {}
    return {
        repr({key: value for key, value in entry.items() if key not in ("headline", "metrics")}): entry
        for entry in earlier["tasks"]
    }


def show(paths: list[Path]) -> None:
    """Print the headline metrics of results files as a table, in percent."""
    results = [read_json(path) for path in paths]
    columns = list(dict.fromkeys(task["name"] for result in results for task in result["tasks"]))
    table = TextTable("model", *columns)
    for result in results:
        values = {task["name"]: task["metrics"][task["headline"]] for task in result["tasks"]}
        table.add_row(result["model"], *(f"{100 * values[name]:.1f}" if name in values else "-" for name in columns))
    Console().print(table)
    console.print(f"Results are in {paths[0].parent}.")
