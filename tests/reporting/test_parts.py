"""The parts of the report that need no pictures: comparing results, tables, plots, markup."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from rich.console import Console

from mcip.core.errors import ArtefactError, ConfigError
from mcip.evaluation.tasks import Kind, Task
from mcip.reporting import plots, table
from mcip.reporting.comparison import Comparison, signed
from mcip.reporting.grids import most_different
from mcip.reporting.markup import Html, tag
from mcip.reporting.page import headline
from mcip.reporting.results import Measured, Results, read_results

KINDS: dict[str, Kind] = {"birds": "i2i", "shops": "i2i", "names": "zero-shot", "search": "t2i"}


def results(model: str, **values: float | None) -> Results:
    """Results in percent; a task that is None is left out."""
    measured = {}
    for name, value in values.items():
        if value is not None:
            task = Task(name, KINDS.get(name, "i2i"), "data")
            measured[name] = Measured(task, "hash", task.headline, {task.headline: value / 100})
    return Results(model, f"from/{model}", "f" * 64, "own", (Path("nowhere"),), measured)


def three() -> list[Results]:
    return [
        results("base", birds=20, shops=30, names=50, search=60),
        results("a&b", birds=60, shops=70, names=40, search=44),
        results("c_d", birds=50, shops=70.04, names=52, search=60.004),
    ]


def test_rows_are_percent_to_a_hundredth_and_missing_values_are_none() -> None:
    comparison = Comparison.of([results("base", birds=12.34567, names=5), results("other", birds=float("nan"))])
    expected = [{"model": "base", "birds": 12.35, "names": 5.0}, {"model": "other", "birds": None, "names": None}]
    assert table.rows(comparison) == expected
    json.dumps(table.rows(comparison), allow_nan=False)


def test_differences_means_and_the_best_model() -> None:
    comparison = Comparison.of(three())
    assert comparison.baseline == "base"
    assert comparison.difference("base", "birds") is None
    assert comparison.difference("a&b", "birds") == 40
    assert comparison.mean("a&b", comparison.of_kind("i2i")) == 65
    assert comparison.best_other == "c_d"
    assert Comparison.of(three(), highlight="a&b").best_other == "a&b"
    # 70 and 70.04 are the same number in the table, so both are the best.
    assert [model for model in comparison.models if comparison.is_best(model, "shops")] == ["a&b", "c_d"]
    assert [model for model in comparison.models if comparison.is_best(model, "birds")] == ["a&b"]
    assert [model for model in comparison.models if comparison.is_best(model, None)] == ["c_d"]


def test_missing_values_are_never_the_best_and_leave_no_mean() -> None:
    comparison = Comparison.of(
        [results("base", birds=20, names=30), results("x", birds=40), results("y", birds=21, names=31)]
    )
    assert comparison.mean("x") is None
    assert comparison.gain("x") == 20
    assert comparison.best_other == "x"
    assert not comparison.is_best("x", "names")
    assert comparison.is_best("y", None)
    assert [cell.value for cell in table.cells(comparison, "x")] == ["40.0", "-", "-"]
    assert [cell.difference for cell in table.cells(comparison, "x")] == ["+20.0", "", ""]


def test_one_model_has_no_best_and_no_differences() -> None:
    comparison = Comparison.of(three()[:1])
    assert comparison.best_other is None
    assert all(not cell.best and not cell.difference for cell in table.cells(comparison, "base"))
    assert "**" not in table.as_markdown(comparison)
    assert plots.teaser(comparison) is not None


def test_models_without_a_common_task_are_shown_but_not_compared() -> None:
    comparison = Comparison.of([results("base", birds=20), results("x", names=40)])
    assert comparison.best_other is None
    assert plots.teaser(comparison) is None
    assert "No other model" in headline(comparison)[1]
    assert Comparison.of([results("base")]).mean("base") is None


def test_results_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ConfigError, match="no results to report"):
        Comparison.of([])
    with pytest.raises(ConfigError, match="'base': evaluate under different names"):
        Comparison.of([three()[0], three()[0]])
    with pytest.raises(ConfigError, match=r"baseline: .* 'bse'; there are those of base\."):
        Comparison.of(three(), "bse")
    with pytest.raises(ConfigError, match="highlight another model"):
        Comparison.of(three(), highlight="base")
    other = Measured(Task("birds", "i2i", "elsewhere", exclude_self=False), "hash", "map", {"map": 0.5})
    kept = Results("x", "x", "f", "own", (), {"birds": other})
    with pytest.raises(ConfigError, match=r"'birds' was not the same for 'x'.*exclude_self differ"):
        Comparison.of([three()[0], kept])


def test_the_same_rows_elsewhere_on_the_disk_are_the_same_task() -> None:
    moved = Measured(Task("birds", "i2i", "elsewhere"), "hash", "map", {"map": 0.5})
    assert (
        Comparison.of([three()[0], Results("x", "x", "f", "own", (), {"birds": moved})]).difference("x", "birds") == 30
    )


@pytest.mark.parametrize("content", ["[1]", '{"kind": "other"}', '{"kind": "results", "model": "m"}', "{"])
def test_files_that_are_not_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match=r"some\.json"):
        read_results(path)


def test_markdown_has_the_best_in_bold_and_differences_in_brackets() -> None:
    lines = table.as_markdown(Comparison.of(three())).splitlines()
    assert lines[0] == "| model | birds (mAP) | shops (mAP) | names (top-1) | search (R@5) | mean |"
    assert lines[3] == "| a&b | **60.0** (+40.0) | **70.0** (+40.0) | 40.0 (-10.0) | 44.0 (-16.0) | 53.5 (+13.5) |"
    assert lines[2].startswith("| base | 20.0 |")
    assert "**60.0** |" in lines[2]
    assert "**60.0** (+0.0)" in lines[4]


def test_latex_escapes_and_groups_columns_by_kind() -> None:
    text = table.as_latex(Comparison.of(three()))
    assert r"\multicolumn{2}{c}{image to image}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4} \cmidrule(lr){5-5}" in text
    assert r"a\&b & \textbf{60.0} {\scriptsize $+40.0$}" in text
    assert r"c\_d" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    widths = {
        line.count("&") for line in text.replace(r"\&", "").splitlines() if line.endswith(r"\\") and "multi" not in line
    }
    assert widths == {5}


def test_csv_reads_back() -> None:
    found = list(csv.DictReader(io.StringIO(table.as_csv(Comparison.of([*three(), results("e,f", birds=1)])))))
    assert [row["model"] for row in found] == ["base", "a&b", "c_d", "e,f"]
    assert found[1]["birds"] == "60.0"
    assert found[3]["names"] == ""


def test_terminal_table_takes_names_literally() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120)
    console.print(table.as_text(Comparison.of([results("[red]base", birds=20), results("x", birds=40)])))
    assert "[red]base" in text.getvalue()
    assert "40.0 +20.0" in text.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_terminal_table_is_whole_at_any_width(width: int) -> None:
    text = io.StringIO()
    scores = [{f"task-{place}": float(place**2 + model) for place in range(1, 8)} for model in (1, 2)]
    compared = Comparison.of([results("base", **scores[0]), results("a-model-with-a-name", **scores[1])])
    Console(file=text, width=width).print(table.as_text(compared))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = [word for line in lines for word in line.replace("│", " ").split()]
    tables = words.count("a-model-with-a-name")
    assert tables == sum(line.startswith("│ base ") for line in lines)
    assert tables == 1 if width == 200 else tables > 1
    for model in (1, 2):
        assert [words.count(f"{place**2 + model}.0") for place in range(1, 8)] == [1] * 7
    assert [words.count(f"task-{place}") for place in range(1, 8)] == [1] * 7


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"birds": 60.0, "search": 44.0}, ("x gains 40.0 points over base in image-to-image", "text to image −16.0")),
        ({"birds": 15.0, "search": 60.0}, ("x loses 5.0 points against base in image-to-image", "text to image +0.0")),
        ({"birds": 20.01, "search": 60.0}, ("x equals base in image-to-image", "mean over all tasks +0.0")),
        ({"search": 70.0}, ("x gains 10.0 points over base over all 2 tasks", "")),
    ],
)
def test_headline_says_what_the_best_model_gains(second: dict[str, float], said: tuple[str, str]) -> None:
    title, summary = headline(Comparison.of([results("base", birds=20, search=60), results("x", **second)]))
    assert title.startswith(said[0])
    assert said[1] in summary


@pytest.mark.parametrize(("value", "text"), [(1.26, "+1.3"), (-1.26, "-1.3"), (-0.04, "+0.0"), (0, "+0.0"), (None, "")])
def test_differences_have_a_sign(value: float | None, text: str) -> None:
    assert signed(value) == text


@settings(deadline=None)
@given(st.text(max_size=20))
def test_markup_escapes_text_and_attributes(text: str) -> None:
    made = tag("p", text, title=text)
    inside = made.removeprefix("<p").removesuffix("</p>")
    assert "<" not in inside
    assert inside.count(">") == 1
    assert inside.count('"') == 2
    assert tag("p", Html("<b>")) == "<p><b></p>"


def test_queries_that_changed_most_are_of_different_classes_while_there_are_any() -> None:
    change = np.array([0.9, -0.8, 0.7, np.nan, 0.0, -0.1])
    labels = np.array(["a", "a", "b", "c", "d", "e"])
    assert most_different(change, labels, 3).tolist() == [0, 2, 5]
    assert most_different(change, labels, 9).tolist() == [0, 1, 2, 5]
    assert most_different(np.zeros(3), labels[:3], 3).tolist() == []


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


def test_tasks_called_model_are_refused() -> None:
    one = Measured(Task("model", "i2i", "data"), "hash", "map", {"map": 0.5})
    arguments: dict[str, Any] = {"source": "x", "fingerprint": "f", "suite": "own", "stores": ()}
    with pytest.raises(ConfigError, match="rename the task"):
        Comparison.of([Results("x", **arguments, measured={"model": one})])
