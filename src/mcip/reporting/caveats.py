"""What a reader of the numbers must know: benchmarks that were measured otherwise than in print, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from mcip.reporting.results import Measured, Results


def caveats(results: Results) -> list[str]:
    """Sentences on one model's results."""
    tasks_by_reason: dict[str, list[str]] = {}
    for name, measured in results.measured.items():
        if reasons := _reasons(measured):
            tasks_by_reason.setdefault(", ".join(reasons), []).append(name)
    return [
        *(
            f"{', '.join(tasks)} {'was' if len(tasks) == 1 else 'were'} measured {reason}: not to be compared with "
            "published numbers."
            for reason, tasks in tasks_by_reason.items()
        ),
        *(f"{title} was not measured: {reason}." for title, reason in dict.fromkeys(results.missing)),
        *([results.note] if results.note else []),
    ]


def _reasons(measured: Measured) -> list[str]:
    """How a benchmark was measured otherwise than in print; empty for other tables and the paper's rows."""
    task = measured.task
    if task.benchmark is None and task.column is None:
        return []
    reasons = {
        f"by the preset {task.preset!r} instead of the paper's": task.column is not None and task.preset != "paper",
        f"on a subsample of about {task.limit:,} images" if task.limit else "": task.limit is not None,
        "on data that have not the counts of the official release": measured.official is False,
    }
    return [reason for reason, applies in reasons.items() if applies]


def all_caveats(results: Sequence[Results]) -> list[str]:
    """The sentences on all models, each once, with the names of the models that it is about."""
    models_by_sentence: dict[str, list[str]] = {}
    for result in results:
        for sentence in caveats(result):
            models_by_sentence.setdefault(sentence, []).append(result.model)
    return [f"Note on {', '.join(models)}: {sentence}" for sentence, models in models_by_sentence.items()]
