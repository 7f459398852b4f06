"""Plots: the scatter plots of the paper's teaser, dots for all tasks, and the histogram of mined captions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mcip.core.files import atomic_write
from mcip.evaluation.tasks import Kind
from mcip.reporting.comparison import Comparison
from mcip.reporting.labels import place_labels, plain
from mcip.reporting.paper import MARK
from mcip.reporting.words import KIND_WORDS, metric_word

MARKERS = "osD^vPX*hp"


@dataclass(frozen=True)
class Theme:
    """Colours of a plot.

    Attributes:
        text: Labels and ticks.
        grid: Grid lines and the frame.
        baseline: The baseline's point, and the arrows.
        models: The other models' points in turn, distinct for colour-blind eyes.
        background: Behind the plot; "none" leaves it to the page.
    """

    text: str
    grid: str
    baseline: str
    models: tuple[str, ...]
    background: str


PAPER = Theme("#1c2430", "#dfe3e8", "#6b7683", ("#0072b2", "#d55e00", "#009e73", "#b3478c", "#8a6d00"), "white")
LIGHT = Theme(PAPER.text, PAPER.grid, PAPER.baseline, PAPER.models, "none")
DARK = Theme("#e6e9ee", "#343c48", "#98a3b1", ("#56b4e9", "#ff9e4a", "#3fcf9f", "#e59ac8", "#e5cf4e"), "none")

# The teaser's two panels: what stands on the y axis against image to image.
_PANELS: tuple[Kind, ...] = ("t2i", "zero-shot")


def panels(comparison: Comparison) -> list[Kind]:
    """The teaser's panels in which there is a model that was measured here."""
    return [y for y in _PANELS if set(panel_points(comparison, y)) & set(comparison.measured_models)]


def panel_points(comparison: Comparison, y: Kind) -> dict[str, tuple[float, float]]:
    """The models that have all tasks of image to image and of kind `y`, each with its two means in percent."""
    points = {}
    for model in comparison.models:
        across, up = comparison.mean(model, comparison.of_kind("i2i")), comparison.mean(model, comparison.of_kind(y))
        if across is not None and up is not None:
            points[model] = (across, up)
    return points


def panel(comparison: Comparison, y: Kind, theme: Theme) -> Figure:
    """One panel of the teaser as a figure of its own."""
    figure = new_figure(4.6, 3.9, theme)
    _draw_panel(figure.add_subplot(), comparison, y, theme)
    return figure


def teaser(comparison: Comparison, theme: Theme = PAPER) -> Figure | None:
    """The paper's teaser: text to image and zero-shot against image to image, an arrow from the baseline to each model.

    None where no model was measured here at both kinds of a panel.
    """
    kinds = panels(comparison)
    if not kinds:
        return None
    figure = new_figure(4.6 * len(kinds), 3.9, theme)
    for place, y in enumerate(kinds, 1):
        _draw_panel(figure.add_subplot(1, len(kinds), place), comparison, y, theme)
    return figure


def dots(comparison: Comparison, theme: Theme = PAPER) -> Figure | None:
    """All tasks below each other, a dot per model, with the 95 % interval where it is known. None for a single task."""
    tasks = list(comparison.tasks)
    if len(tasks) < 2:
        return None
    names = [plain(_short(model)) for model in comparison.models]
    legend_columns = 2 if max(map(len, names)) <= 20 else 1
    legend_rows = -(-len(names) // legend_columns)
    figure = new_figure(4.8, 0.9 + 0.34 * len(tasks) + 0.22 * legend_rows, theme)
    axes = figure.add_subplot()
    style(axes, theme)
    height = {task: -place for place, task in enumerate(tasks)}
    for task in tasks:
        values = [value for model in comparison.models if (value := comparison.value(model, task)) is not None]
        if values:
            axes.plot([min(values), max(values)], [height[task]] * 2, color=theme.grid, linewidth=3, zorder=1)
    for model, look in _looks(comparison, theme).items():
        shown = {task: value for task in tasks if (value := comparison.value(model, task)) is not None}
        axes.plot(
            list(shown.values()),
            [height[task] for task in shown],
            linestyle="",
            zorder=3,
            label=plain(_short(model)),
            **look,
        )
        for task in shown:
            if (interval := comparison.interval(model, task)) is not None:
                axes.plot(interval, [height[task]] * 2, color=look["markeredgecolor"], linewidth=1, alpha=0.6, zorder=2)
    kinds = [comparison.tasks[task].task.kind for task in tasks]
    for place, (above, below) in enumerate(pairwise(kinds)):
        if above != below:
            axes.axhline(-place - 0.5, color=theme.grid, linewidth=1)
    axes.set_yticks([height[task] for task in tasks], [_titled(comparison, task) for task in tasks])
    axes.set_ylim(0.5 - len(tasks), 0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("%")
    figure.legend(loc="outside lower center", ncols=legend_columns, frameon=False, fontsize=9, labelcolor=theme.text)
    return figure


def _short(model: str) -> str:
    """A model's name in a plot, where hollow markers say which are the paper's."""
    return model.removesuffix(f" {MARK}")


def _titled(comparison: Comparison, task: str) -> str:
    return plain(f"{task} ({metric_word(comparison.tasks[task].headline)})")


def _looks(comparison: Comparison, theme: Theme) -> dict[str, dict[str, Any]]:
    """How each model is drawn: the same colour and marker in every plot; the paper's models are hollow."""
    others = [model for model in comparison.models if model != comparison.baseline]
    looks = {}
    for model in comparison.models:
        place = others.index(model) if model in others else 0
        colour = theme.models[place % len(theme.models)] if model in others else theme.baseline
        hollow = comparison.result(model).paper
        looks[model] = {
            "color": colour, "marker": MARKERS[place % len(MARKERS)] if model in others else "o", "markersize": 8,
            "markerfacecolor": "none" if hollow else colour, "markeredgecolor": colour if hollow else theme.text,
            "markeredgewidth": 1.4 if hollow else 0.6,
        }  # fmt: skip
    return looks


def caption_histogram(images_by_count: Sequence[int], theme: Theme = PAPER) -> Figure:
    """How many images got how many mined captions; `images_by_count[n]` images got n."""
    figure = new_figure(4.6, 2.6, theme)
    axes = figure.add_subplot()
    style(axes, theme)
    bars = axes.bar(range(len(images_by_count)), images_by_count, color=theme.models[0], width=0.82)
    if images_by_count and images_by_count[0]:
        bars[0].set_color(theme.models[1])
        bars[0].set_hatch("///")
        bars[0].set_edgecolor(theme.text)
    if len(images_by_count) <= 12:
        axes.bar_label(bars, [f"{n:,}" if n else "" for n in images_by_count], fontsize=7, color=theme.text, padding=2)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("captions of an image")
    axes.set_ylabel("images")
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name`.png and `name`.svg."""
    for ending in ("png", "svg"):
        with atomic_write(folder / f"{name}.{ending}") as path:
            path.write_bytes(_rendered(figure, ending))


def data_uri(figure: Figure) -> str:
    """A figure as an SVG data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(_rendered(figure, "svg")).decode()


def _rendered(figure: Figure, ending: str) -> bytes:
    file = io.BytesIO()
    # The same figure gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "mcip"}):
        figure.savefig(file, format=ending, dpi=200, metadata={"Date": None} if ending == "svg" else {})
    return file.getvalue()


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """An empty figure of a size in inches."""
    figure = Figure((width, height), facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, theme: Theme) -> None:
    """Give axes the look of all plots."""
    axes.set_facecolor(theme.background)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.text, labelsize=9, length=0)
    axes.spines[:].set_color(theme.grid)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.label.set(color=theme.text, size=10)
    axes.yaxis.label.set(color=theme.text, size=10)


def _draw_panel(axes: Axes, comparison: Comparison, y: Kind, theme: Theme) -> None:
    points = panel_points(comparison, y)
    style(axes, theme)
    axes.set_xlabel(_axis(comparison, "i2i"))
    axes.set_ylabel(_axis(comparison, y))
    start = points.get(comparison.baseline)
    looks = _looks(comparison, theme)
    for model, point in points.items():
        axes.plot(*point, linestyle="", zorder=3, **looks[model])
        if start is not None and model != comparison.baseline and not comparison.result(model).paper:
            colour = looks[model]["color"]
            arrow = {"arrowstyle": "-|>", "color": colour, "alpha": 0.65, "linewidth": 1.4, "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", point, start, arrowprops=arrow, zorder=2)
    axes.set_xlim(_limits([across for across, _ in points.values()], 0.4))
    axes.set_ylim(_limits([up for _, up in points.values()], 0.15))
    text = {
        _short(model): theme.text if model == comparison.baseline else looks[model]["color"] for model in points
    }  # fmt: skip
    place_labels(axes, {_short(model): point for model, point in points.items()}, text, start)


def _limits(values: list[float], above: float) -> tuple[float, float]:
    """Limits at least 5 points apart, so that noise does not look like a difference, with room for labels.

    Args:
        values: What is within the limits.
        above: The room above the values, as a share of their range.
    """
    low, high = min(values), max(values)
    room = max(1.0, (5.0 - (high - low)) / 2)
    return low - 0.15 * (high - low) - room, high + above * (high - low) + room


def _axis(comparison: Comparison, kind: Kind) -> str:
    tasks = comparison.of_kind(kind)
    name = f"{KIND_WORDS[kind]}, {comparison.metrics_of(tasks)} in %"
    return name if len(tasks) < 2 else f"{name}, mean of {len(tasks)} tasks"
