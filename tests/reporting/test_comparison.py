"""Results side by side: differences, means, the best, and which model stands for the others."""

from __future__ import annotations

from typing import Any

import pytest

from mcip.core.errors import ConfigError
from mcip.evaluation.tasks import Task
from mcip.reporting import plots, table
from mcip.reporting.comparison import Comparison
from mcip.reporting.formats import as_markdown
from mcip.reporting.paper import MARK, paper_rows, table1
from mcip.reporting.results import Measured, Results
from mcip.reporting.summary import headline
from mcip.reporting.words import signed
from tests.reporting.factories import of_table1, results, three

PAPER_NAMES = [f"{row['model']} {MARK}" for row in table1()["rows"]]


def test_differences_means_and_the_best_model() -> None:
    comparison = Comparison.of(three())
    assert comparison.baseline == "base"
    assert comparison.difference("base", "birds") is None
    assert comparison.difference("a&b", "birds") == 40
    assert comparison.mean("a&b", comparison.of_kind("i2i")) == 65
    assert comparison.headline_model == "c_d"
    assert Comparison.of(three(), highlight="a&b").headline_model == "a&b"
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
    assert comparison.headline_model == "x"
    assert not comparison.is_best("x", "names")
    assert comparison.is_best("y", None)
    assert [cell.value for cell in table.cells(comparison, "x")] == ["40.0", "-", "-"]
    assert [cell.difference for cell in table.cells(comparison, "x")] == ["+20.0", "", ""]


def test_one_model_has_no_best_and_no_differences() -> None:
    comparison = Comparison.of(three()[:1])
    assert comparison.headline_model is None
    assert all(not cell.best and not cell.difference for cell in table.cells(comparison, "base"))
    assert "**" not in as_markdown(comparison)
    assert plots.teaser(comparison) is not None


def test_models_without_a_common_task_are_shown_but_not_compared() -> None:
    comparison = Comparison.of([results("base", birds=20), results("x", names=40)])
    assert comparison.headline_model is None
    assert plots.teaser(comparison) is None
    assert "No other model" in headline(comparison)[1]
    assert Comparison.of([results("base")]).mean("base") is None


def test_results_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ConfigError, match="There are no results"):
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


def test_tasks_called_model_are_refused() -> None:
    measured = Measured(Task("model", "i2i", "data"), "hash", "map", {"map": 0.5})
    arguments: dict[str, Any] = {"source": "x", "fingerprint": "f", "suite": "own", "stores": ()}
    with pytest.raises(ConfigError, match="rename the task"):
        Comparison.of([Results("x", **arguments, measured={"model": measured})])


@pytest.mark.parametrize(("value", "text"), [(1.26, "+1.3"), (-1.26, "-1.3"), (-0.04, "+0.0"), (0, "+0.0"), (None, "")])
def test_differences_have_a_sign(value: float | None, text: str) -> None:
    assert signed(value) == text


def test_the_headline_model_has_the_best_mean_over_the_tasks_that_all_measured_models_have() -> None:
    compared = Comparison.of(
        [
            results("base", birds=20, shops=20, search=50),
            results("one", birds=50, shops=30, search=None),
            results("two", birds=40, shops=45, search=90),
            results("three", birds=45, shops=40, search=10),
        ]
    )
    # Over birds and shops: 40, 42.5 and 42.5; of equal ones the earlier.
    assert compared.common_tasks == ["birds", "shops"]
    assert compared.headline_model == "two"
    assert Comparison.of(compared.results, highlight="three").headline_model == "three"
    assert Comparison.of([compared.results[0], *compared.results[:0:-1]]).headline_model == "three"


def test_means_that_differ_by_rounding_alone_are_equal() -> None:
    first = {"birds": 0.1, "shops": 0.2, "names": 0.3, "search": 0.7}
    second = dict(zip(first, (0.7, 0.3, 0.2, 0.1), strict=True))
    for orders in ((first, second), (second, first)):
        models = [results(name, **values) for name, values in zip("xy", orders, strict=True)]
        compared = Comparison.of([results("base", **dict.fromkeys(first, 0.0)), *models])
        assert compared.headline_model == "x"


def test_without_a_task_of_all_models_the_largest_difference_to_the_baseline_decides() -> None:
    compared = Comparison.of(
        [
            results("base", birds=20, names=60),
            results("one", birds=25),
            results("two", names=70),
            results("three", shops=99),
        ]
    )
    assert compared.common_tasks == []
    assert compared.headline_model == "two"


def test_rows_of_the_paper_have_no_differences_to_a_measured_baseline() -> None:
    measured = [of_table1("base", 50), of_table1("mine", 60)]
    compared = Comparison.of([*measured, *paper_rows(measured)])
    assert compared.difference("mine", "my GPR1200") == 10
    for name in PAPER_NAMES:
        assert compared.gain(name) is None
        assert all(not cell.difference for cell in table.cells(compared, name))
    # Where the baseline is a row of the paper, that is what was asked for.
    assert Comparison.of([*measured, *paper_rows(measured)], PAPER_NAMES[0]).difference("mine", "my GPR1200") == -16.0
    with pytest.raises(ConfigError, match="is a row of the paper"):
        Comparison.of([*measured, *paper_rows(measured)], highlight=PAPER_NAMES[1])
