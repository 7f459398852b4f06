"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from mcip.evaluation.tasks import Kind
from mcip.reporting import plots
from mcip.reporting.comparison import KIND_WORDS, METRIC_WORDS, Comparison, number, signed
from mcip.reporting.document import document
from mcip.reporting.galleries import grid_section, mined_section, themed
from mcip.reporting.grids import Grid
from mcip.reporting.markup import Html, tag
from mcip.reporting.mined import Mined
from mcip.reporting.protocol import made_section
from mcip.reporting.table import Cell, caption, cells, columns, groups


def page(comparison: Comparison, grids: Sequence[Grid], notes: Sequence[str], mined: Mined | None) -> str:
    """Draw the page.

    Args:
        comparison: The results.
        grids: The neighbour grids.
        notes: Sentences about what was left out.
        mined: The mined captions to show, if any.

    Returns:
        HTML.
    """
    title, summary = headline(comparison)
    return document(
        "mcip report",
        title,
        summary,
        _tiles(comparison),
        _table_section(comparison),
        _teaser_section(comparison),
        _dots_section(comparison),
        *(grid_section(grid) for grid in grids),
        *(tag("p", note, class_="note") for note in notes),
        mined_section(mined) if mined else None,
        made_section(comparison),
    )


def headline(comparison: Comparison) -> tuple[str, str]:
    """What the best model gains over the baseline: a line, and a sentence or two more."""
    best, baseline = comparison.best_other, comparison.baseline
    if best is None:
        several = len(comparison.models) > 1
        why = (
            "No other model was measured at the same tasks."
            if several
            else "There is no second model to compare it to."
        )
        return f"What {baseline} reaches", why
    i2i = comparison.gain(best, comparison.of_kind("i2i"))
    gain = comparison.gain(best) if i2i is None else i2i
    assert gain is not None
    where = f"over all {len(comparison.tasks)} tasks" if i2i is None else "in image-to-image retrieval"
    verb = "gains" if gain > 0 else "loses"
    title = f"{best} {verb} {abs(gain):.1f} points {'over' if gain > 0 else 'against'} {baseline} {where}"
    if not round(gain, 1):
        title = f"{best} equals {baseline} {where}"
    kept = [
        f"{KIND_WORDS[kind]} {_proper(signed(found))}"
        for kind in KIND_WORDS
        if kind != "i2i" and (found := comparison.gain(best, comparison.of_kind(kind))) is not None
    ]
    if i2i is not None and kept:
        overall = f"mean over all tasks {_proper(signed(comparison.gain(best)))}"
        return title, f"At the same time: {', '.join([*kept, overall])} points."
    others = len(comparison.models) - 1
    chosen = "by the mean over all tasks" if comparison.highlight is None else "as asked"
    return title, f"One of {others} models compared to {baseline}, chosen {chosen}." if others > 1 else ""


def _capital(text: str) -> str:
    return text if text == "k-NN" else text.capitalize()


def _proper(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _tiles(comparison: Comparison) -> Html:
    tiles = [_tile(comparison, kind) for kind in KIND_WORDS if comparison.of_kind(kind)]
    return tag("section", tiles, class_="tiles", aria_label="Means by kind of task")


def _tile(comparison: Comparison, kind: Kind) -> Html:
    tasks, best = comparison.of_kind(kind), comparison.best_other
    shown = [comparison.baseline] if best is None else [comparison.baseline, best]
    both = [task for task in tasks if all(comparison.value(model, task) is not None for model in shown)]
    tasks = both or tasks
    metric = comparison.tasks[tasks[0]].headline
    before = comparison.mean(comparison.baseline, tasks)
    value = tag("p", tag("span", number(before)), class_="value")
    foot = tag("p", comparison.baseline, class_="who")
    if best is not None:
        value = tag(
            "p",
            tag("span", number(before), class_="from"),
            tag("span", " → ", class_="from"),
            tag("span", number(comparison.mean(best, tasks))),
            class_="value",
        )
        gain = tag("strong", _proper(signed(comparison.gain(best, tasks))) or "-")
        foot = tag("p", gain, " points", class_="who")
    mean = f", mean of {len(tasks)} tasks" if len(tasks) > 1 else ""
    name = tag("h2", _capital(KIND_WORDS[kind]), tag("small", f"{METRIC_WORDS.get(metric, metric)} in %{mean}"))
    return tag("div", name, value, foot, class_="tile")


def _table_section(comparison: Comparison) -> Html:
    shown = columns(comparison)
    spans = groups(shown)
    kinds = [tag("th", group, colspan=span, scope="colgroup" if group else None) for group, span in spans]
    titles = [
        tag("th", tag("span", column.title), tag("small", column.metric) if column.metric else None, scope="col")
        for column in shown
    ]
    rows = [_row(comparison, model) for model in comparison.models]
    table = tag(
        "table",
        tag("thead", tag("tr", tag("td"), kinds, class_="kinds"), tag("tr", tag("th", "model", scope="col"), titles)),
        tag("tbody", rows),
    )
    scroller = tag("div", table, class_="scroll", role="region", tabindex=0, aria_label="Table of results")
    return tag("section", tag("h2", "Results"), scroller, tag("p", caption(comparison), class_="caption"))


def _row(comparison: Comparison, model: str) -> Html:
    several = len(comparison.models) > 1
    found = [_cell(cell, several) for cell in cells(comparison, model)]
    paper = comparison.result(model).paper
    return tag("tr", tag("th", model, _mark(comparison, model), scope="row"), found, class_="paper" if paper else None)


def _mark(comparison: Comparison, model: str) -> Html | None:
    return tag("small", "baseline") if model == comparison.baseline and len(comparison.models) > 1 else None


def _cell(cell: Cell, compared: bool) -> Html:
    value = tag("strong", cell.value) if cell.best else tag("span", cell.value)
    difference = tag("small", _proper(cell.difference)) if compared else None
    interval = tag("small", cell.interval, class_="interval") if cell.interval else None
    return tag("td", value, difference, interval, class_="best" if cell.best else None)


def _teaser_section(comparison: Comparison) -> Html:
    figures, arrows = [], None
    for kind in plots.PANELS:
        points = plots.panel_points(comparison, kind)
        if points:
            told = "; ".join(f"{model}: {across:.1f} and {up:.1f}" for model, (across, up) in points.items())
            alt = f"Scatter plot of {KIND_WORDS[kind]} against image to image, in percent. {told}."
            if comparison.baseline in points and any(model in points for model in comparison.own[1:]):
                arrows = f" Arrows start at {comparison.baseline}."
            light, dark = (plots.panel(comparison, kind, theme) for theme in (plots.LIGHT, plots.DARK))
            name = f"{_capital(KIND_WORDS[kind])} against image to image"
            figures.append(tag("figure", tag("figcaption", name), themed(light, dark, alt)))
    title = tag("h2", "Image search against text")
    if not figures:
        missing = (
            "No model was measured at image to image and also at text to image or zero-shot: there is nothing to plot."
        )
        return tag("section", title, tag("p", missing, class_="note"))
    text = "Further right: better at finding images by images. Further up: better with text."
    return tag("section", title, tag("p", text, arrows), tag("div", figures, class_="plots"))


def _dots_section(comparison: Comparison) -> Html | None:
    light, dark = (plots.dots(comparison, theme) for theme in (plots.LIGHT, plots.DARK))
    if light is None or dark is None:
        return None
    alt = "Dot plot of all tasks, with a row for each and a dot for each model; the table above has its numbers."
    figure = tag("figure", tag("figcaption", "All tasks, in percent"), themed(light, dark, alt))
    bars = " Thin bars are 95 % bootstrap intervals."
    known = any(comparison.interval(model, task) for model in comparison.models for task in comparison.tasks)
    hollow = " Hollow dots are the paper's." if len(comparison.own) < len(comparison.models) else None
    text = tag("p", "Every task has a row, every model a dot.", bars if known else None, hollow)
    return tag("section", tag("h2", "Task by task"), text, tag("div", figure, class_="plots single"))
