"""Neighbour grids of benchmarks in their official layouts: galleries of their own, junk, texts as queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcip import models
from mcip.evaluation.benchmarks.base import Retrieval
from mcip.evaluation.task_data import Sources
from mcip.reporting.comparison import Comparison
from mcip.reporting.grids import most_different, neighbour_grid
from mcip.reporting.rankings import space_of
from mcip.reporting.results import joined, read_results
from mcip.stages.evaluate import evaluate
from tests.evaluation import layouts
from tests.tiny import CONFIG

SUITES = ("roxford", "gpr1200", "cub", "ilias-core-t2i")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two random models at four benchmarks, measured by the paper's protocol."""
    folder = tmp_path_factory.mktemp("grids")
    layouts.revisited(folder / "data")
    layouts.gpr1200(folder / "data")
    layouts.cub(folder / "data")
    layouts.ilias(folder / "data")
    named = [f"{seed}={models.save(models.from_config(CONFIG, seed), folder / str(seed))}" for seed in (0, 1)]
    paths = [
        path
        for suite in SUITES
        for path in evaluate(
            named, folder / "out", suite=suite, data=str(folder / "data"), allow_counts=True, max_unreadable=0.5
        ).paths
    ]
    return Comparison.of(joined([read_results(path) for path in paths]))


@pytest.mark.parametrize("benchmark", SUITES)
def test_grids_show_what_the_metric_counts(comparison: Comparison, benchmark: str) -> None:
    (name,) = [name for name, measured in comparison.tasks.items() if measured.task.benchmark == benchmark]
    grid = neighbour_grid(comparison, name, "1", queries=3, neighbours=5)
    before, after = (comparison.result(model).measured[name].values() for model in ("0", "1"))
    assert (grid.better, grid.worse) == (int((after > before).sum()), int((after < before).sum()))
    assert 0 < len(grid.changes) <= 3
    for query in grid.changes:
        assert query.is_text == (benchmark == "ilias-core-t2i")
        assert query.before.score != query.after.score
        for ranking in (query.before, query.after):
            assert 1 <= len(ranking.neighbours) <= 5
            similarities = [neighbour.similarity for neighbour in ranking.neighbours]
            assert similarities == sorted(similarities, reverse=True)
            if grid.metric == "R@1":
                assert (ranking.neighbours[0].outcome == "hit") == (ranking.score > 0)
            if benchmark == "gpr1200":
                assert "itself" in [neighbour.outcome for neighbour in ranking.neighbours]


def test_outcomes_follow_the_ground_truth_of_each_query(comparison: Comparison) -> None:
    task = next(measured.task for measured in comparison.tasks.values() if measured.task.benchmark == "roxford")
    data = Sources().data(task)
    assert isinstance(data, Retrieval)
    assert data.truth is not None
    space = space_of(comparison.result("0"), task, data)
    for query, truth in enumerate(data.truth):
        ranking = space.nearest(query, 100, task)
        outcomes = {image.row: image.outcome for image in ranking}
        # The last image of the gallery is missing.
        assert sorted(outcomes) == list(range(len(data.gallery[0]) - 1))
        assert len(ranking) == len(outcomes)
        assert {row for row, outcome in outcomes.items() if outcome == "hit"} == {*truth["easy"], *truth["hard"]}
        assert {row for row, outcome in outcomes.items() if outcome == "ignored"} == set(truth["junk"])


def test_rankings_are_by_the_form_of_embedding_that_was_measured(tmp_path: Path) -> None:
    layouts.cub(tmp_path / "data")
    model = models.save(models.from_config(CONFIG), tmp_path / "model")
    paths = evaluate(
        [f"m={model}"], tmp_path / "out", suite="cub", data=str(tmp_path / "data"), allow_counts=True,
        max_unreadable=0.5, embedding=["float32", "dim=2,int8"],
    ).paths  # fmt: skip
    found = []
    for results in map(read_results, paths):
        measured = next(iter(results.measured.values()))
        space = space_of(results, measured.task, Sources().data(measured.task))
        assert measured.headline == "r1"
        first = [space.nearest(query, 1, measured.task)[0] for query in range(len(space.queries))]
        assert [image.outcome == "hit" for image in first] == (measured.values() > 0).tolist()
        found.append([image.row for image in first])
    assert found[0] != found[1]


def test_queries_that_changed_most_are_of_different_classes_while_there_are_any() -> None:
    change = np.array([0.9, -0.8, 0.7, np.nan, 0.0, -0.1])
    labels = np.array(["a", "a", "b", "c", "d", "e"])
    assert most_different(change, labels, 3).tolist() == [0, 2, 5]
    assert most_different(change, labels, 9).tolist() == [0, 1, 2, 5]
    assert most_different(np.zeros(3), labels[:3], 3).tolist() == []
