"""The plots: labels that can be read, the same bytes each time, any counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from mcip.reporting import plots
from mcip.reporting.comparison import Comparison
from mcip.reporting.paper import paper_rows
from tests.reporting.factories import of_table1, results, three


def test_labels_of_crowded_points_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(0)
    near = [results(f"method {i}", birds=60 + v[0], search=50 + v[1]) for i, v in enumerate(rng.normal(0, 1.5, (7, 2)))]
    figure = plots.panel(Comparison.of([results("base", birds=20, search=55), *near]), "t2i", plots.PAPER)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()  # type: ignore[no-untyped-call]
    axes = figure.axes[0]
    # An annotation's own extent would include the line to its point.
    boxes = [np.asarray(Text.get_window_extent(text).extents) for text in axes.texts if text.get_text()]
    assert len(boxes) == 8
    frame = np.asarray(figure.bbox.extents)
    for i, one in enumerate(boxes):
        assert min(*(one[:2] - frame[:2]), *(frame[2:] - one[2:])) >= 0
        for other in boxes[:i]:
            overlap = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
            assert overlap.min() < 0.5


def test_plots_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        figure = plots.teaser(Comparison.of(three()))
        assert figure is not None
        plots.save(figure, tmp_path / folder, "teaser")
    for ending in ("png", "svg"):
        one, two = ((tmp_path / folder / f"teaser.{ending}").read_bytes() for folder in ("one", "two"))
        assert one == two


@pytest.mark.parametrize("counts", [[], [3], [0, 2, 5], [1] * 21])
def test_histogram_of_any_counts(counts: list[int]) -> None:
    assert plots.data_uri(plots.caption_histogram(counts)).startswith("data:image/svg+xml;base64,")


def test_hollow_markers_are_the_papers() -> None:
    measured = [of_table1("base", 50), of_table1("mine", 60)]
    figure = plots.dots(Comparison.of([*measured, *paper_rows(measured)]))
    assert figure is not None
    axes = figure.axes[0]
    assert len(axes.get_yticklabels()) == 14
    faces = {str(line.get_label()): line.get_markerfacecolor() for line in axes.lines}
    assert faces["OpenAI L/14@336 + MCIP"] == "none"
    assert faces["mine"] != "none"
    assert plots.dots(Comparison.of([of_table1("base", 50, GPR1200={})])) is None


def test_a_panel_needs_a_model_that_was_measured_here() -> None:
    measured = [of_table1("base", 50, GPR1200={})]
    compared = Comparison.of([*measured, *paper_rows(measured)])
    assert plots.panel_points(compared, "t2i")
    assert plots.panels(compared) == []
    assert plots.teaser(compared) is None
