"""Curves of text over image to image: the line of each method from the base to what it trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from mcip.reporting.labels import plain
from mcip.reporting.plots import MARKERS, PAPER, Theme, new_figure, style


class Point(NamedTuple):
    """A model: its place in percent, and the standard deviation of both over seeds."""

    images: float
    text: float
    images_spread: float = 0.0
    text_spread: float = 0.0


def curves(lines: Mapping[str, Sequence[Point]], axes: tuple[str, str], theme: Theme = PAPER) -> Figure:
    """Draw lines of models: image search to the right, text upwards.

    Args:
        lines: The points of each line by its name, in the order in which they are joined.
        axes: The labels of the axes.
        theme: The colours.
    """
    figure = new_figure(5.4, 4.4, theme)
    panel = figure.add_subplot()
    style(panel, theme)
    for place, (name, points) in enumerate(lines.items()):
        colour = theme.models[place % len(theme.models)]
        panel.errorbar(
            [point.images for point in points], [point.text for point in points],
            xerr=[point.images_spread for point in points], yerr=[point.text_spread for point in points],
            color=colour, marker=MARKERS[place % len(MARKERS)], markersize=5, linewidth=1.4, elinewidth=0.8,
            linestyle=("-", "--", ":")[place // len(theme.models) % 3], label=plain(name),
        )  # fmt: skip
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    if lines:
        columns = 2 if len(lines) > 3 and max(map(len, lines)) <= 24 else 1
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8, labelcolor=theme.text)
    return figure
