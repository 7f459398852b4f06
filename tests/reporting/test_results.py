"""Results files as the report reads them: intervals, several files of a model, the paper's rows."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.evaluation.suites import TABLE1
from mcip.evaluation.tasks import Task
from mcip.metrics import bootstrap_interval
from mcip.reporting import table
from mcip.reporting.comparison import Comparison
from mcip.reporting.formats import as_csv, as_latex, as_markdown
from mcip.reporting.paper import MARK, paper_rows, table1
from mcip.reporting.results import Measured, difference_interval, joined, read_results
from mcip.reporting.summary import headline
from tests.reporting.factories import of_table1

PAPER_NAMES = [f"{row['model']} {MARK}" for row in table1()["rows"]]


def test_the_papers_rows_are_whole_and_their_means_as_printed() -> None:
    columns, rows = table1()["columns"], table1()["rows"]
    assert [column["key"] for column in columns] == list(TABLE1)
    assert len(rows) == 9
    for row in rows:
        assert len(row["values"]) == 14
        mean = sum(row["values"]) / 14
        if "note" in row:
            assert row["model"] == "OpenAI L/14@336 + GPR-FT"
            assert (row["average"], round(mean, 1)) == (68.4, 72.8)
            assert "68.4" in row["note"]
            assert "72.8" in row["note"]
        else:
            assert row["average"] == pytest.approx(mean, abs=0.05001)
    assert sum("note" in row for row in rows) == 1


def test_the_papers_rows_stand_in_ones_own_columns() -> None:
    results = [of_table1("base", 50), of_table1("mine", 60)]
    comparison = Comparison.of([*results, *paper_rows(results)])
    assert comparison.models == ["base", "mine", *PAPER_NAMES]
    assert comparison.measured_models == ["base", "mine"]
    expected = ["my GPR1200", *list(TABLE1)[1:10], "my ZS IN-A", *list(TABLE1)[11:]]
    assert list(comparison.tasks) == expected
    assert comparison.value(PAPER_NAMES[0], "my GPR1200") == 76.0
    assert comparison.mean(PAPER_NAMES[0]) == pytest.approx(67.17, abs=0.005)
    assert comparison.mean("mine") is None
    # Better as they are, the paper's models are not what the report is about.
    assert comparison.headline_model == "mine"
    assert headline(comparison)[0].startswith("mine gains 10.0 points over base")
    assert comparison.is_best(PAPER_NAMES[-1], "my GPR1200")
    for text in (as_markdown(comparison), as_latex(comparison), as_csv(comparison)):
        assert text.count(MARK) >= 9
    latex = as_latex(comparison).splitlines()
    assert latex[[line.startswith("OpenAI") for line in latex].index(True) - 1] == r"\midrule"


def test_tasks_beside_the_papers_columns_are_not_in_the_mean() -> None:
    extra = Measured(Task("INSTRE", "i2i", "elsewhere"), "hash", "map", {"map": 0.1})
    results = [replace(of_table1("base", 50), measured={"INSTRE": extra})]
    comparison = Comparison.of([*results, *paper_rows(results)])
    # A table of one's own that is called like a column of the paper is not that column.
    assert list(comparison.tasks) == ["GPR1200", f"INSTRE {MARK}", *list(TABLE1)[2:], "INSTRE"]
    assert comparison.mean(PAPER_NAMES[0]) == pytest.approx(67.17, abs=0.005)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Results of two models at one task of 200 queries, with the queries' values; and one without, as of old."""
    rng = np.random.default_rng(0)
    values = {"base": rng.random(200), "better": rng.random(200) * 0.2 + 0.8, "old": np.full(200, 0.5)}
    values["same"] = values["base"] + 0.01 * rng.standard_normal(200)
    return [write(tmp_path, model, results, old=model == "old") for model, results in values.items()]


def write(folder: Path, model: str, values: NDArray[np.float64], old: bool = False) -> Path:
    task = Task("birds", "i2i", "data").as_dict() | {"data_hash": "h", "headline": "map"}
    task["metrics"] = {"map": float(values.mean())}
    if old:
        task = {key: task[key] for key in ("name", "kind", "data", "data_hash", "headline", "metrics")}
    else:
        np.save(folder / f"{model}.npy", values.astype(np.float32))
        task |= {"interval": list(bootstrap_interval(values)), "per_query": f"{model}.npy"}
    facts = {"kind": "results", "model": model, "source": "x", "fingerprint": model, "suite": "own", "embeddings": "e"}
    (folder / f"{model}.json").write_text(json.dumps(facts | {"tasks": [task]}))
    return folder / f"{model}.json"


def test_intervals_are_shown_and_differences_in_doubt_are_marked(files: list[Path]) -> None:
    comparison = Comparison.of([read_results(path) for path in files])
    values = {path.stem: np.load(path.with_suffix(".npy")) for path in files if path.stem != "old"}
    low, high = bootstrap_interval(values["better"].astype(np.float64) - values["base"])
    assert comparison.difference_interval("better", "birds") == pytest.approx((100 * low, 100 * high))
    assert comparison.in_doubt("same", "birds")
    assert not comparison.in_doubt("better", "birds")
    assert comparison.difference_interval("base", "birds") is None
    assert comparison.interval("old", "birds") is comparison.difference_interval("old", "birds") is None
    base, better, same, old = (table.cells(comparison, model)[0] for model in ("base", "better", "same", "old"))
    ends = comparison.interval("base", "birds")
    assert ends is not None
    assert base.interval == f"{ends[0]:.1f}–{ends[1]:.1f}"
    assert ends[0] < float(base.value) < ends[1]
    assert old.interval == ""
    assert same.difference.endswith("≈")
    assert not better.difference.endswith("≈")
    assert "interval holds 0" in table.caption(comparison)
    assert f"| base | {base.interval} |" in as_markdown(comparison)
    assert r"\approx$" in as_latex(comparison)
    assert rf"\scriptsize {base.interval.replace('–', '--')}" in as_latex(comparison)
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(as_csv(comparison)))}
    assert float(rows["base"]["birds low"]) == pytest.approx(ends[0], abs=0.01)
    assert rows["old"]["birds high"] == ""
    assert table.intervals(comparison)[0]["birds"] == [round(end, 2) for end in ends]


def test_values_of_other_queries_are_not_paired(files: list[Path]) -> None:
    base, better = (read_results(path).measured["birds"] for path in files[:2])
    assert difference_interval(better, base) is not None
    assert difference_interval(replace(better, data_hash="other"), base) is None
    np.save(files[1].with_suffix(".npy"), np.zeros(3, np.float32))
    assert difference_interval(better, base) is None
    files[1].with_suffix(".npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtefactError, match=r"better\.npy is cut off or damaged"):
        better.values()
    files[1].with_suffix(".npy").unlink()
    with pytest.raises(ArtefactError, match="values of the queries of birds are not there"):
        better.values()


_FACTS = '"kind": "results", "source": "s", "fingerprint": "f", "suite": "own", "embeddings": "e"'
_TASK = '"name": "t", "kind": "i2i", "data": "d", "data_hash": "h", "headline": "map"'


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "null",
        "",
        "{",
        '{"kind": "other"}',
        '{"kind": "results", "model": "m"}',
        f'{{{_FACTS}, "model": "m", "tasks": 5}}',
        f'{{{_FACTS}, "model": "m", "tasks": [1]}}',
        f'{{{_FACTS}, "model": "m", "tasks": [{{{_TASK}}}]}}',
    ],
)
def test_files_that_are_not_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match=r"some\.json"):
        read_results(path)


def test_files_of_one_model_are_joined() -> None:
    results, other = of_table1("base", 50), of_table1("base", 60, GPR1200={})
    rest = replace(results, suite="own", stores=(Path("b"),), measured={"fish": next(iter(results.measured.values()))})
    (both,) = joined([results, rest])
    assert list(both.measured) == ["my GPR1200", "my ZS IN-A", "fish"]
    assert (both.suite, both.stores) == ("table1, own", (Path("b"),))
    assert joined([results, replace(rest, model="x")]) == [results, replace(rest, model="x")]
    with pytest.raises(ConfigError, match="both have the task 'my GPR1200'"):
        joined([results, other])
    with pytest.raises(ConfigError, match="of different weights"):
        joined([results, replace(rest, fingerprint="g")])
