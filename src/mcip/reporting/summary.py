"""What the results say, in short: the headline, a card per kind of task, and which model to take for what."""

from __future__ import annotations

from dataclasses import dataclass

from mcip.evaluation.tasks import Kind
from mcip.reporting.comparison import Comparison
from mcip.reporting.words import KIND_SENTENCES, KIND_WORDS, PURPOSES, number, signed


@dataclass(frozen=True)
class Card:
    """What the baseline and the headline model reach at the tasks of a kind.

    Attributes:
        kind: The kind.
        title: Its name for people.
        metric: The metric and the number of tasks of the mean.
        sentence: What the kind asks.
        before: The baseline's mean in percent; empty where it was not measured.
        after: The headline model's mean; empty where it was not measured, or there is none.
        gain: The difference in points; empty where there is none.
        model: Whose number it is, where there is only one.
    """

    kind: Kind
    title: str
    metric: str
    sentence: str
    before: str
    after: str
    gain: str
    model: str


@dataclass(frozen=True)
class Recommendation:
    """Which model to take for a purpose.

    Attributes:
        purpose: What for.
        models: Those with the best mean, equal to a tenth of a percent.
        value: That mean in percent, over the tasks that all measured models have.
        baseline: The baseline's mean.
        in_doubt: Whether all differences of the first of them to the baseline have an interval that holds 0.
    """

    purpose: str
    models: list[str]
    value: str
    baseline: str
    in_doubt: bool


def headline(comparison: Comparison) -> tuple[str, str]:
    """What the headline model gains over the baseline: a line, and a sentence or two more."""
    best, baseline = comparison.headline_model, comparison.baseline
    if best is None:
        several = len(comparison.measured_models) > 1
        reason = "No other model was measured at the same tasks." if several else "There is no second model to compare."
        return f"What {baseline} reaches", reason
    i2i = comparison.gain(best, comparison.of_kind("i2i"))
    gain = comparison.gain(best) if i2i is None else i2i
    assert gain is not None
    where = f"over all {len(comparison.tasks)} tasks" if i2i is None else "in image-to-image retrieval"
    verb, preposition = ("gains", "over") if gain > 0 else ("loses", "against")
    title = f"{best} {verb} {abs(gain):.1f} points {preposition} {baseline} {where}"
    if not round(gain, 1):
        title = f"{best} equals {baseline} {where}"
    parts = [
        f"{KIND_WORDS[kind]} {_minus(signed(difference))}"
        for kind in KIND_WORDS
        if kind != "i2i" and (difference := comparison.gain(best, comparison.of_kind(kind))) is not None
    ]
    if i2i is None or not parts:
        return title, _why(comparison)
    parts.append(f"mean over all tasks {_minus(signed(comparison.gain(best)))}")
    return title, f"At the same time: {', '.join(parts)} points. {_why(comparison)}".strip()


def _why(comparison: Comparison) -> str:
    others = len(comparison.measured_models) - 1
    if others < 2:
        return ""
    if comparison.highlight is not None:
        return f"It was highlighted, of {others} models beside {comparison.baseline}."
    return f"Of the {others} models beside {comparison.baseline} it has the best mean."


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def cards(comparison: Comparison) -> list[Card]:
    """A card per kind of task at which the baseline or the headline model was measured."""
    return [card for kind in KIND_WORDS if (card := _card(comparison, kind)) is not None]


def _card(comparison: Comparison, kind: Kind) -> Card | None:
    pair = [comparison.baseline, *([comparison.headline_model] if comparison.headline_model else [])]
    by_model = {
        model: {task for task in comparison.of_kind(kind) if comparison.value(model, task) is not None}
        for model in pair
    }
    measured = [model for model in pair if by_model[model]]
    if not measured:
        return None
    common = set.intersection(*(by_model[model] for model in measured))
    if not common:
        measured, common = measured[:1], by_model[measured[0]]
    tasks = [task for task in comparison.of_kind(kind) if task in common]
    means = {model: number(comparison.mean(model, tasks)) for model in measured}
    compared = len(measured) == 2
    return Card(
        kind,
        _capital(KIND_WORDS[kind]),
        f"{comparison.metrics_of(tasks)} in %" + (f", mean of {len(tasks)} tasks" if len(tasks) > 1 else ""),
        KIND_SENTENCES[kind],
        means.get(comparison.baseline, ""),
        "" if comparison.headline_model is None else means.get(comparison.headline_model, ""),
        signed(comparison.gain(pair[1], tasks)) if compared else "",
        "" if compared else measured[0],
    )


def _capital(text: str) -> str:
    return text if text == "k-NN" else text.capitalize()


def recommendations(comparison: Comparison) -> list[Recommendation]:
    """Which model to take for what, by the tasks that all measured models have; empty for one model."""
    models, common = comparison.measured_models, comparison.common_tasks
    if len(models) < 2 or not common:
        return []
    purposes: dict[str, list[str]] = {}
    for kind, purpose in PURPOSES.items():
        if tasks := [task for task in comparison.of_kind(kind) if task in common]:
            purposes[purpose] = tasks
    if len(purposes) > 1:
        purposes["all of these with one model"] = common
    return [_recommendation(comparison, purpose, tasks) for purpose, tasks in purposes.items()]


def _recommendation(comparison: Comparison, purpose: str, tasks: list[str]) -> Recommendation:
    best = comparison.best(tasks, comparison.measured_models)
    value, baseline = (number(comparison.mean(model, tasks)) for model in (best[0], comparison.baseline))
    in_doubt = comparison.baseline not in best and all(comparison.in_doubt(best[0], task) for task in tasks)
    return Recommendation(purpose, best, value, baseline, in_doubt)
