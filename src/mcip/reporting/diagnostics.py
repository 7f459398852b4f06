"""How images and captions lie in the joint spaces of the models, where `mcip evaluate` measured it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mcip.reporting.results import Results

DIAGNOSTICS = {"modality_gap": "modality gap", "probe_accuracy": "probe accuracy", "alignment": "alignment"}
SENTENCES = (
    "The modality gap is the distance of the mean image from the mean text; 0 is none. Probe accuracy is how often a "
    "linear probe tells images from texts; 0.5 is chance. Alignment is the mean squared distance of an image from its "
    "caption; 0 is best."
)


def joint_spaces(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Per model and task its diagnostics; once for tasks that have the same images and captions."""
    return [row for result in results for row in _of_model(result)]


def _of_model(result: Results) -> Iterator[dict[str, Any]]:
    hashes = set()
    for name, measured in result.measured.items():
        if measured.space and measured.data_hash not in hashes:
            hashes.add(measured.data_hash)
            yield {"model": result.model, "task": name, **{key: measured.space.get(key) for key in DIAGNOSTICS}}


def diagnostics_table(results: Sequence[Results]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of texts."""
    rows = [
        [row["model"], row["task"], *("-" if row[key] is None else f"{row[key]:.3f}" for key in DIAGNOSTICS)]
        for row in joint_spaces(results)
    ]
    return ["model", "task", *DIAGNOSTICS.values()], rows
