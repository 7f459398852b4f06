"""Labels of points in a scatter plot, placed so that they do not cover each other, the points or the arrows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

_FONT_SIZE = 9.5
_DISTANCES = (9, 16, 26, 38, 52)
_DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_FAR = 20
_LONGEST = 34


def place_labels(
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    arrows_from: tuple[float, float] | None = None,
) -> None:
    """Write each point's name beside it, at the nearest place that is free, with a line to the point where that is far.

    Args:
        axes: With limits that are final.
        points: Names with their place in the units of the data.
        colours: Of the names.
        arrows_from: Where the arrows to the points start.
    """
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()  # type: ignore[no-untyped-call]
    scale = canvas.figure.dpi / 72
    where = {name: np.asarray(axes.transData.transform(point)) for name, point in points.items()}
    obstacles = _along_arrows(list(where.values()), arrows_from, axes)
    frame = axes.get_window_extent()
    inside = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]])
    taken: list[NDArray[np.float64]] = [np.stack([at - 6 * scale, at + 6 * scale]) for at in where.values()]
    for name, at in where.items():
        size = _size(axes, name)
        options = []
        for distance, direction in product(_DISTANCES, _DIRECTIONS):
            shift = np.asarray(direction) * distance * scale / np.hypot(*direction)
            box = _box(at + shift, size, direction)
            options.append((_cost(box, taken, obstacles, inside) + 0.4 * distance * scale, distance, direction, box))
        _, distance, direction, box = min(options, key=lambda option: option[0])
        taken.append(box)
        line = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.7, "alpha": 0.7, "shrinkA": 0, "shrinkB": 4}
        shift = np.asarray(direction) * distance / np.hypot(*direction)
        across, up = direction
        axes.annotate(
            plain(name), points[name], shift, textcoords="offset points", fontsize=_FONT_SIZE, color=colours[name],
            ha=("right", "center", "left")[across + 1], va=("top", "center", "bottom")[up + 1],
            arrowprops=line if distance > _FAR else None, annotation_clip=False, zorder=4,
        )  # fmt: skip


def plain(name: str) -> str:
    """The name with dollar signs that do not start a formula, shortened where it would fill the plot."""
    short = name if len(name) <= _LONGEST else name[: _LONGEST // 2 - 1] + "…" + name[-_LONGEST // 2 :]
    return short.replace("$", r"\$")


def _size(axes: Axes, name: str) -> NDArray[np.float64]:
    text = axes.text(0, 0, plain(name), fontsize=_FONT_SIZE)
    extent = text.get_window_extent()
    text.remove()
    return np.array([extent.width, extent.height])


def _box(anchor: NDArray[np.float64], size: NDArray[np.float64], direction: tuple[int, int]) -> NDArray[np.float64]:
    """Lower left and upper right corner of a text that is anchored on its side towards the point."""
    low = anchor + size * (np.asarray(direction) - 1) / 2
    return np.stack([low, low + size])


def _cost(
    box: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
    obstacles: NDArray[np.float64],
    inside: NDArray[np.float64],
) -> float:
    covered = sum(
        float(np.prod(np.clip(np.minimum(box[1], other[1]) - np.maximum(box[0], other[0]), 0, None))) for other in taken
    )
    crossed = int(((obstacles >= box[0] - 2) & (obstacles <= box[1] + 2)).all(1).sum()) if len(obstacles) else 0
    outside = float(np.clip(inside[0] - box[0], 0, None).sum() + np.clip(box[1] - inside[1], 0, None).sum())
    return 3 * covered + 8 * crossed + 30 * outside


def _along_arrows(
    ends: list[NDArray[np.float64]], start: tuple[float, float] | None, axes: Axes, steps: int = 60
) -> NDArray[np.float64]:
    if start is None:
        return np.empty((0, 2))
    first = np.asarray(axes.transData.transform(start))
    along = np.linspace(0, 1, steps)[:, None]
    return np.concatenate([first + along * (end - first) for end in ends])
