"""Suites as YAML files: benchmarks by their name alone, what they leave out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mcip.core.errors import ConfigError
from mcip.core.files import read_json
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.presets import PRESETS
from mcip.evaluation.suites import benchmark_task, find_suite, read_suite
from mcip.stages.evaluate import evaluate

LOOSE: dict[str, Any] = {"allow_counts": True, "max_unreadable": 0.2}


def write(path: Path, *entries: Any) -> str:
    path.write_text(yaml.safe_dump(list(entries)))
    return str(path)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_needs_no_other_key(tmp_path: Path, name: str, preset: Any) -> None:
    (task,) = read_suite(write(tmp_path / "s.yaml", {"benchmark": name}), "benchmarks", preset)
    assert task == benchmark_task(BENCHMARKS[name], "benchmarks", PRESETS[preset])


def test_what_a_task_says_goes_before_the_benchmark(tmp_path: Path) -> None:
    entry = {"benchmark": "cub", "data": "elsewhere", "preset": "standard", "name": "birds", "limit": 50}
    suite = find_suite(write(tmp_path / "s.yaml", entry, {"benchmark": "cars"}), "benchmarks")
    birds, cars = suite.tasks
    assert (birds.name, birds.data, birds.exclude_self, birds.transform) == ("birds", "elsewhere", True, "model")
    assert (birds.metric, birds.limit, birds.kind) == ("r1", 50, "i2i")
    assert (cars.name, cars.data, cars.preset, cars.drop_first) == ("Cars196", "benchmarks", "paper", True)
    assert (suite.name, suite.preset) == ("s", None)


def test_a_suite_of_benchmarks_gives_the_numbers_of_the_benchmarks(
    benchmarks: Path, base: Path, tmp_path: Path
) -> None:
    suite = write(
        tmp_path / "mine.yaml", {"benchmark": "gpr1200"}, {"benchmark": "gpr1200", "name": "half", "limit": 9}
    )
    evaluation = evaluate([f"m={base}"], tmp_path, suite=suite, data=str(benchmarks), **LOOSE)
    (alone,) = evaluate([f"m={base}"], tmp_path, suite="gpr1200", data=str(benchmarks), **LOOSE)
    assert evaluation.paths[0].name == "m.mine.json"
    assert evaluation[0].measured["GPR1200"].metrics == alone.measured["GPR1200"].metrics
    whole, part = read_json(evaluation.paths[0])["tasks"]
    assert whole["caveats"] == [
        "not the official release: 20 queries where there must be 12,000; 5 classes where there must be 1,200"
    ]
    assert part["caveats"] == [*whole["caveats"], "on a subsample of about 9 images"]
    assert evaluation[0].measured["half"].caveats == tuple(part["caveats"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"benchmark": "gpr"}, "task 1: there is no benchmark 'gpr'; there are gpr1200"),
        ({"benchmark": "coco", "kind": "i2i"}, "the benchmark 'coco' is 't2i', not 'i2i'"),
        ({"benchmark": "coco", "preset": "papers"}, "preset is 'papers': it is one of paper, standard"),
        ({"benchmark": "coco", "lable": "x"}, "unknown key 'lable'; did you mean 'label'"),
        ({"benchmark": ["coco"]}, "no benchmark"),
        ({"name": "a", "kind": "i2i"}, None),
        ("coco", "must be a list of tasks"),
    ],
)
def test_wrong_tasks(benchmarks: Path, base: Path, tmp_path: Path, entry: Any, message: str | None) -> None:
    path = write(tmp_path / "s.yaml", entry)
    if message is None:  # its data are those of the command
        assert find_suite(path, "x").tasks[0].data == "x"
        message, benchmarks = "data missing", None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=message):
        evaluate([f"m={base}"], tmp_path, suite=path, data=benchmarks and str(benchmarks), **LOOSE)


def test_a_benchmark_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data missing: the benchmarks' folder"):
        read_suite(write(tmp_path / "s.yaml", {"benchmark": "coco"}))
