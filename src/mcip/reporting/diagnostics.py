"""How images and texts lie in the embedding spaces of the models, where `mcip evaluate` measured it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcip.reporting.results import Results

# The keys of a results file, and of what lies in them, with a head and a sentence for people.
_WORDS = {
    "modality_gap": (
        "modality gap",
        "The modality gap is the distance of the mean image from the mean text; 0 is none.",
    ),
    "probe_accuracy": (
        "probe accuracy",
        "Probe accuracy is the share of images and texts that a linear probe tells apart; 0.5 is chance.",
    ),
    "alignment": ("alignment", "Alignment is the mean squared distance of an image from its caption; 0 is best."),
}


def read_diagnostics(content: Mapping[str, Any]) -> dict[str, float]:
    """The diagnostics in a results file, by name; empty where they were not measured."""
    values = {name: content[name] for name in _WORDS if isinstance(content.get(name), int | float)}
    gap = content.get("modality_gap")
    if isinstance(gap, Mapping):
        values |= {"modality_gap": gap["distance"], "probe_accuracy": gap["probe_accuracy"]}
    return {name: float(values[name]) for name in _WORDS if name in values}


def diagnostics_table(results: Sequence[Results]) -> tuple[list[str], list[list[str]]] | None:
    """Heads, and a row per model that has any; None where there is none."""
    names = [name for name in _WORDS if any(name in result.diagnostics for result in results)]
    rows = [[result.model, *_cells(result.diagnostics, names)] for result in results if result.diagnostics]
    return (["model", *(_WORDS[name][0] for name in names)], rows) if rows else None


def _cells(diagnostics: Mapping[str, float], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"{diagnostics[name]:.3f}" if name in diagnostics else "-"


def sentences(results: Sequence[Results]) -> list[str]:
    """What each diagnostic that is shown means."""
    return [sentence for name, (_, sentence) in _WORDS.items() if any(name in result.diagnostics for result in results)]
