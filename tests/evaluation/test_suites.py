"""Suites end to end: what is there is measured, what is missing is named, nothing is measured or embedded twice."""

from __future__ import annotations

import importlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mcip.cli.main import main
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.results_file import results_name
from mcip.evaluation.suites import SUITES, TABLE1, Suite, find_suite, table1_average
from mcip.reporting.results import read_results
from mcip.stages.evaluate import evaluate
from tests.evaluation import layouts
from tests.evaluation.counting import count_measured
from tests.tiny import run, run_killed_over_and_over

COLUMNS = [
    "GPR1200", "INSTRE", "CUB200", "ROxford", "kNN IN-V", "kNN IN-S", "kNN IN-A", "kNN FGVCA",
    "ZS IN-V", "ZS IN-S", "ZS IN-A", "ZS ObjectNet", "T2I Flickr30k", "T2I COCO",
]  # fmt: skip
LOOSE: dict[str, Any] = {"allow_counts": True, "max_unreadable": 0.2}


@pytest.fixture(scope="module")
def measured(benchmarks: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of table1 by the paper's protocol."""
    out = tmp_path_factory.mktemp("results")
    evaluate([f"m={base}"], out, suite="table1", data=str(benchmarks), **LOOSE)
    return out


def test_table1_has_the_papers_columns_in_their_order(measured: Path) -> None:
    results = read_json(measured / "m.table1.json")
    assert list(TABLE1) == COLUMNS
    assert [entry["column"] for entry in results["tasks"]] == COLUMNS
    assert (results["suite"], results["preset"], results["missing"]) == ("table1", "paper", [])
    values = [entry["metrics"][entry["headline"]] for entry in results["tasks"]]
    assert results["average"] == pytest.approx(np.mean(values))
    assert {entry["preset"] for entry in results["tasks"]} == {"paper"}
    assert {entry["official_counts"] for entry in results["tasks"]} == {False}
    assert {entry["units"] for entry in results["tasks"]} == {"share"}
    assert [entry["group"] for entry in results["tasks"]] == ["I2I"] * 4 + ["k-NN"] * 4 + ["zero-shot"] * 4 + [
        "T2I"
    ] * 2
    assert [entry["headline"] for entry in results["tasks"][:4]] == ["map", "map", "r1", "map"]
    assert [len(entry["templates"]) for entry in results["tasks"]] == [0] * 8 + [80] * 4 + [0] * 2
    assert list(read_results(measured / "m.table1.json").measured) == [entry["name"] for entry in results["tasks"]]


def test_the_mean_needs_all_columns() -> None:
    values = {column: float(number) for number, column in enumerate(TABLE1)}
    assert table1_average(values) == pytest.approx(6.5)
    del values["T2I COCO"]
    assert table1_average(values) is None


def test_a_second_run_measures_and_embeds_nothing(
    measured: Path, benchmarks: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (measured / "embeddings").rglob("*")}
    content = (measured / "m.table1.json").read_bytes()
    monkeypatch.setattr("mcip.evaluation.several.measure", None)
    evaluate([f"m={base}"], measured, suite="table1", data=str(benchmarks), **LOOSE)
    assert (measured / "m.table1.json").read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in (measured / "embeddings").rglob("*")} == before


def test_presets_stand_side_by_side_and_share_what_they_can(
    measured: Path, benchmarks: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    session = importlib.import_module("mcip.evaluation.encoders")
    embed = session.embed_images

    def counting(table: Any, model: Any, out: Path, **settings: Any) -> Any:
        if not (out / "manifest.json").is_file():
            embedded.append(settings["transform"])
        return embed(table, model, out, **settings)

    monkeypatch.setattr(session, "embed_images", counting)
    evaluate([f"m={base}"], measured, suite="table1", data=str(benchmarks), preset="standard", **LOOSE)
    results = read_json(measured / "m.table1-standard.json")
    assert results["preset"] == "standard"
    assert (measured / "m.table1.json").is_file()
    # Validation, Sketch and A were embedded with the model's own transform for zero-shot already.
    assert embedded == ["model"] * 8
    paper = read_json(measured / "m.table1.json")
    for one, other in zip(results["tasks"], paper["tasks"], strict=True):
        if one["group"] in ("zero-shot", "T2I"):
            assert one["metrics"] == other["metrics"]
        if one["column"] in ("GPR1200", "INSTRE", "ROxford"):
            assert one["metrics"] != other["metrics"]
        assert one["exclude_self"]
        assert not one["drop_first"]


def test_what_is_missing_is_named_and_the_rest_measured(tmp_path: Path, base: Path) -> None:
    layouts.gpr1200(tmp_path / "data")
    layouts.objectnet(tmp_path / "data")
    evaluation = evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(tmp_path / "data"), **LOOSE)
    results = read_json(evaluation.paths[0])
    assert [entry["column"] for entry in results["tasks"]] == ["GPR1200", "ZS ObjectNet"]
    missing = {one["column"]: one["reason"] for one in results["missing"]}
    assert list(missing) == [column for column in COLUMNS if column not in ("GPR1200", "ZS ObjectNet")]
    assert missing["T2I COCO"] == f"{tmp_path / 'data'} has no folder coco or mscoco or mscoco_captions"
    assert "no folder imagenet or" in missing["kNN IN-A"]
    assert results["average"] is None
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(evaluation)
    shown = console.export_text()
    assert "m: AVG needs all 14 columns, 12 are missing" in shown
    assert "ROxford" in shown
    assert "GPR1200: not the official release: 20 queries where there must be 12,000" in shown
    # What is gone after it was measured stays in the results.
    shutil.rmtree(tmp_path / "data" / "GPR1200")
    (again,) = evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(tmp_path / "data"), **LOOSE)
    assert set(again.measured) == {"GPR1200", "zero-shot ObjectNet"}
    assert "GPR1200" not in [title for title, _ in again.missing]


def test_a_data_set_without_one_of_its_files_is_missing_too(tmp_path: Path, base: Path) -> None:
    layouts.instre(tmp_path / "data")
    (tmp_path / "data" / "INSTRE" / "gnd_instre.mat").unlink()
    layouts.ilias(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "ilias" / "yfcc100m")
    (path,) = evaluate([f"m={base}"], tmp_path / "out", suite="extended", data=str(tmp_path / "data"), **LOOSE).paths
    results = read_json(path)
    assert [entry["benchmark"] for entry in results["tasks"]] == ["instre", "ilias-core", "ilias-core-t2i"]
    missing = {one["benchmark"]: one["reason"] for one in results["missing"]}
    assert missing["instre-classic"].endswith("gnd_instre.mat: it is part of the official release.")
    assert "no folder ilias/yfcc100m or yfcc100m" in missing["ilias"]
    with pytest.raises(DataError, match=r"There is no file .*gnd_instre\.mat"):
        evaluate([f"m={base}"], tmp_path / "out", suite="instre-classic", data=str(tmp_path / "data"), **LOOSE)


def test_wrong_counts_stop_before_anything_is_measured(benchmarks: Path, base: Path, tmp_path: Path) -> None:
    message = r"GPR1200 is not the official release: 20 queries where there must be 12,000; 5 classes where.*1,200"
    with pytest.raises(DataError, match=message):
        evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(benchmarks))
    assert not (tmp_path / "out").exists()


def test_added_benchmarks_are_measured_and_the_others_kept(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_tasks = count_measured(monkeypatch)
    data = tmp_path / "data"
    layouts.gpr1200(data)
    evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(data), **LOOSE)
    layouts.aircraft(data)
    evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(data), **LOOSE)
    assert measured_tasks == ["GPR1200", "k-NN FGVC Aircraft"]
    (data / "GPR1200" / "images" / "0_0_x.jpg").unlink()
    evaluate([f"m={base}"], tmp_path / "out", suite="table1", data=str(data), **LOOSE)
    assert measured_tasks == ["GPR1200", "k-NN FGVC Aircraft", "GPR1200"]


def test_killed_at_any_moment_it_ends_the_same(base: Path, tmp_path: Path) -> None:
    layouts.gpr1200(tmp_path / "data")
    layouts.objectnet(tmp_path / "data")
    arguments = {"model": [f"m={base}"], "suite": "table1", "data": str(tmp_path / "data"), **LOOSE}
    assert run("evaluate", {**arguments, "out": tmp_path / "once"}) == 0
    kills = run_killed_over_and_over("evaluate", {**arguments, "out": tmp_path / "often"}, stride=4)
    assert kills > 2
    once, often = (read_json(tmp_path / out / "m.table1.json") for out in ("once", "often"))
    assert once | {"embeddings": ""} == often | {"embeddings": ""}


def test_extended_runs_every_benchmark(benchmarks: Path, base: Path, measured: Path) -> None:
    (path,) = evaluate([f"m={base}"], measured, suite="extended", data=str(benchmarks), **LOOSE).paths
    results = read_json(path)
    assert [entry["benchmark"] for entry in results["tasks"]] == list(BENCHMARKS)
    assert all(entry["headline"] in entry["metrics"] for entry in results["tasks"])
    of = {entry["benchmark"]: entry["metrics"] for entry in results["tasks"]}
    table1 = {entry["benchmark"]: entry["metrics"] for entry in read_json(measured / "m.table1.json")["tasks"]}
    assert {name: of[name] for name in table1} == table1


def test_one_benchmark_by_its_name_through_the_command(
    benchmarks: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", f"m={base}", "--suite", "roxford", "--data", str(benchmarks), "--out", str(tmp_path)]
    assert main(["evaluate", *flags]) == 1
    assert "--allow-counts" in capsys.readouterr().err
    assert main(["evaluate", *flags, "--allow-counts", "--max_unreadable", "0.2"]) == 0
    assert capsys.readouterr().out.strip().endswith("m.roxford.json")
    (entry,) = read_json(tmp_path / "m.roxford.json")["tasks"]
    assert set(entry["metrics"]) == {"map", "map_easy", "map_medium", "map_hard"}


def test_quick_draws_the_same_every_time(benchmarks: Path, base: Path, measured: Path) -> None:
    first, again = (find_suite("quick", str(benchmarks)) for _ in range(2))
    assert [task.limit for task in first.tasks] == [1000] * 14
    assert first == again
    (path,) = evaluate([f"m={base}"], measured, suite="quick", data=str(benchmarks), **LOOSE).paths
    assert path.name == "m.quick.json"
    assert len(read_json(path)["tasks"]) == 14


def test_wrong_suites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no suite tabel1: did you mean 'table1'\? There are own, table1"):
        find_suite("tabel1", str(tmp_path))
    with pytest.raises(ConfigError, match="needs the benchmarks' folder: pass --data"):
        find_suite("table1", None)
    with pytest.raises(ConfigError, match="None of the benchmarks of the suite 'table1' is in"):
        find_suite("table1", str(tmp_path))


def test_no_two_suites_write_the_same_file() -> None:
    suites = [Suite("own", []), *(Suite(name, [], (), preset) for name in SUITES for preset in ("paper", "standard"))]
    names = [results_name("m", suite) for suite in suites]
    assert len(set(names)) == len(names)


def test_embeddings_are_shared_when_folders_move(measured: Path, benchmarks: Path, base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(benchmarks / "GPR1200", moved / "GPR1200")
    before = set((measured / "embeddings").iterdir())
    evaluate([f"n={base}"], measured, suite="gpr1200", data=str(moved), **LOOSE)
    assert set((measured / "embeddings").iterdir()) == before
