"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mcip.reporting import plots
from mcip.reporting.caveats import all_caveats
from mcip.reporting.comparison import Comparison
from mcip.reporting.diagnostics import SENTENCES
from mcip.reporting.grids import Grid
from mcip.reporting.mined import Mined
from mcip.reporting.protocol import diagnostic_facts, metric_facts, model_facts, task_facts
from mcip.reporting.summary import cards, headline, recommendations
from mcip.reporting.table import caption, cells, columns, groups
from mcip.reporting.templating import render
from mcip.reporting.words import KIND_SENTENCES, KIND_WORDS, METHOD_SENTENCES, METRIC_SENTENCES

if TYPE_CHECKING:
    from mcip.reporting.improvement import Improvement

_PACKAGE = "mcip.reporting"


@dataclass(frozen=True)
class Plot:
    """A plot as the page shows it: a title, the figure for light and for dark mode as data URIs, and a text for it."""

    title: str
    light: str
    dark: str
    alt: str


def page(
    comparison: Comparison,
    grids: Sequence[Grid],
    notes: Sequence[str],
    mined: Mined | None,
    improvement: Improvement | None = None,
) -> str:
    """Write the page.

    Args:
        comparison: The results.
        grids: The neighbour grids.
        notes: Sentences about what was left out.
        mined: The mined captions to show, if any.
        improvement: How a better model was found, on the page of `mcip improve`.

    Returns:
        HTML.
    """
    title, summary = headline(comparison)
    shown = cards(comparison)
    kinds = {measured.task.kind for measured in comparison.tasks.values()} - {card.kind for card in shown}
    metrics = {measured.headline for measured in comparison.tasks.values()}
    return render(
        _PACKAGE,
        "report.html.j2",
        maker="mcip report" if improvement is None else "mcip improve",
        improvement=improvement,
        title=title,
        summary=summary,
        cards=shown,
        recommendations=recommendations(comparison),
        methods=METHOD_SENTENCES,
        kinds={name: KIND_SENTENCES[kind] for kind, name in KIND_WORDS.items() if kind in kinds},
        metrics=[sentence for metric, sentence in METRIC_SENTENCES.items() if metric in metrics],
        comparison=comparison,
        table=_table(comparison),
        caption=caption(comparison),
        caveats=all_caveats(comparison.results),
        scatter=_scatter_plots(comparison),
        arrows_from=comparison.baseline if len(comparison.measured_models) > 1 else "",
        dots=_dots(comparison),
        grids=grids,
        notes=notes,
        mined=mined,
        histogram=mined and _histogram(mined),
        diagnostics=diagnostic_facts(comparison),
        diagnostic_sentences=SENTENCES,
        facts=[model_facts(comparison), task_facts(comparison)],
        all_metrics=metric_facts(comparison),
    )


def table_html(comparison: Comparison) -> str:
    """The table alone, for a notebook."""
    return render(
        _PACKAGE, "table.html.j2", comparison=comparison, table=_table(comparison), caption=caption(comparison)
    )


def _table(comparison: Comparison) -> dict[str, object]:
    shown = columns(comparison)
    rows = [(model, comparison.result(model).paper, cells(comparison, model)) for model in comparison.models]
    return {"columns": shown, "groups": groups(shown), "rows": rows}


def _plot(title: str, light: Figure, dark: Figure, alt: str) -> Plot:
    return Plot(title, plots.data_uri(light), plots.data_uri(dark), alt)


def plot_of(title: str, draw: Callable[[plots.Theme], Figure], alt: str) -> Plot:
    """Draw a plot for light and for dark mode."""
    return _plot(title, draw(plots.LIGHT), draw(plots.DARK), alt)


def _scatter_plots(comparison: Comparison) -> list[Plot]:
    shown = []
    for kind in plots.panels(comparison):
        name = f"{KIND_WORDS[kind]} against image to image"
        points = "; ".join(
            f"{model}: {across:.1f} and {up:.1f}"
            for model, (across, up) in plots.panel_points(comparison, kind).items()
        )
        light, dark = (plots.panel(comparison, kind, theme) for theme in (plots.LIGHT, plots.DARK))
        shown.append(_plot(name.capitalize(), light, dark, f"Scatter plot of {name}, in percent. {points}."))
    return shown


def _dots(comparison: Comparison) -> Plot | None:
    light, dark = (plots.dots(comparison, theme) for theme in (plots.LIGHT, plots.DARK))
    if light is None or dark is None:
        return None
    alt = "Dot plot of all tasks, with a row for each and a dot for each model; the table above has its numbers."
    return _plot("All tasks, in percent", light, dark, alt)


def _histogram(mined: Mined) -> Plot:
    light, dark = (plots.caption_histogram(mined.images_by_count, theme) for theme in (plots.LIGHT, plots.DARK))
    counts = ", ".join(f"{images:,} with {count}" for count, images in enumerate(mined.images_by_count) if images)
    return _plot("Captions per image", light, dark, f"Histogram of captions per image. Images: {counts}.")
