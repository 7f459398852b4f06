"""What a reader of the numbers must know: benchmarks that were measured otherwise than in print, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcip.reporting.results import Results


def deviations(results: Results) -> list[str]:
    """Sentences on what of one model's results was measured otherwise than in print."""
    tasks_by_caveats: dict[tuple[str, ...], list[str]] = {}
    for name, measured in results.measured.items():
        if measured.caveats:
            tasks_by_caveats.setdefault(measured.caveats, []).append(name)
    return [
        f"{', '.join(tasks)}: {', '.join(reasons)}; not to be compared with published numbers."
        for reasons, tasks in tasks_by_caveats.items()
    ]


def caveats(results: Results) -> list[str]:
    """Sentences on one model's results: deviations, what is missing, and a note."""
    missing = [f"{title} was not measured: {reason}." for title, reason in dict.fromkeys(results.missing)]
    return [*deviations(results), *missing, *([results.note] if results.note else [])]


def all_caveats(results: Sequence[Results], sentences_on: Callable[[Results], list[str]] = caveats) -> list[str]:
    """The sentences on all models, each once, with the names of the models that it is about."""
    models_by_sentence: dict[str, list[str]] = {}
    for result in results:
        for sentence in sentences_on(result):
            models_by_sentence.setdefault(sentence, []).append(result.model)
    return [f"Note on {', '.join(models)}: {sentence}" for sentence, models in models_by_sentence.items()]
