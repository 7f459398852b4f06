"""The whole report of two tiny models: its files, the object, and the page as a browser would read it."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError
from mcip.data import read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.reporting.report import Report
from mcip.stages.report import report
from mcip.toyshop.tables import Slice, write_slice
from tests.reporting.pages import Page
from tests.tiny import CONFIG

EVIL = '<script src="https://example.org/x.js">&'


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 products with 4 images of 1 caption each."""
    return write_slice(
        Slice("test", stream=7, products=10, images=4, captions=1), tmp_path_factory.mktemp("p") / "t.parquet"
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, table: Path) -> list[Path]:
    """The results files of two random models at three tasks, one with a name that must be escaped."""
    folder = tmp_path_factory.mktemp("evaluated")
    named = {name: str(models.save(models.from_config(CONFIG, seed), folder / name)) for seed, name in enumerate("ab")}
    data = str(table)
    tasks = [
        Task("same & same", "i2i", data),
        Task("shape", "zero-shot", data, label="shape", templates=(f"a {{}} {EVIL}",)),
        Task("words", "t2i", data),
    ]
    return measure_models(named, tasks, folder / "results", precision="fp32")


@pytest.fixture(scope="module")
def out(evaluated: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    assert report([str(path) for path in evaluated], folder, queries=3, neighbours=4).path == folder / "report.html"
    return folder


def read(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def written(result: Report) -> Page:
    return Page(result.path.read_text(encoding="utf-8"))


def decoded(uri: str | None) -> None:
    """Decode an image's data URI."""
    assert uri is not None
    kind, content = uri.split(";base64,")
    data = base64.b64decode(content, validate=True)
    if kind == "data:image/svg+xml":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    else:
        assert kind == "data:image/jpeg"
        with Image.open(io.BytesIO(data)) as image:
            image.load()


def test_json_has_a_row_per_model_with_a_number_per_task(out: Path) -> None:
    rows = json.loads((out / "report.json").read_text())
    assert list(rows) == ["rows", "intervals", "joint_spaces", "notes"]
    assert [list(row) for row in rows["rows"]] == [["model", "same & same", "shape", "words"]] * 2
    assert [row["model"] for row in rows["rows"]] == ["a", "b"]
    for row, interval in zip(rows["rows"], rows["intervals"], strict=True):
        assert 0 <= interval["words"][0] <= row["words"] <= interval["words"][1] <= 100


def test_all_files_are_there(out: Path) -> None:
    tables = {f"report.{ending}" for ending in ("csv", "html", "json", "md", "tex")}
    plots = {f"{name}.{ending}" for name in ("teaser", "tasks") for ending in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == tables | plots


def test_page_loads_nothing_and_all_its_images_decode_and_have_alt_texts(out: Path) -> None:
    page = read(out)
    assert page.all("img")
    for image in page.all("img"):
        decoded(image["src"])
        assert image["alt"]
    for source in page.all("source"):
        decoded(source["srcset"])
        assert source["media"] == "(prefers-color-scheme: dark)"
    for tag, given in page.tags:
        assert tag not in ("script", "link", "a", "iframe", "object")
        assert all(
            (value or "").startswith("data:") for key, value in given.items() if key in ("src", "href", "srcset")
        )
    assert any(given.get("name") == "viewport" for given in page.all("meta"))
    css = (out / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in css
    assert "url(" not in css
    assert "@import" not in css


def test_text_of_others_is_escaped(out: Path) -> None:
    text = (out / "report.html").read_text()
    assert "<script" not in text
    assert EVIL in read(out).text
    assert "same &amp; same" in text


def test_grids_show_both_rankings_of_each_query_with_hits_and_misses_in_words(out: Path) -> None:
    page = read(out)
    assert len(page.all("article", "change")) == 6
    assert len(page.all("blockquote", "query")) == len(page.all("figure", "query")) == 3
    assert len(page.all("div", "ranking")) == 12
    hits, misses = page.all("li", "hit"), page.all("li", "miss")
    assert len(hits) + len(misses) == 48
    assert page.text.count("✓ hit") == len(hits) + 2
    assert page.text.count("✗ miss") == len(misses) + 2
    assert "of 40 queries have a higher average precision (AP) than with a" in page.text
    assert "of 40 queries have a higher R@5 than with a" in page.text


def test_how_it_was_measured_names_sources_and_protocol(out: Path, table: Path) -> None:
    text = read(out).text
    for words in (str(table), "the query is left out of its own ranking", "classes: shape", "all rows", "mAP"):
        assert words in text


def first_task_only(evaluated: list[Path], folder: Path, task: dict[str, Any], **changes: Any) -> list[str]:
    """Copies of results files with one task, changed: no plots are drawn, so these tests are quick."""
    copies = []
    for path in evaluated:
        content = json.loads(path.read_text())
        first = content["tasks"][0]
        content |= {"tasks": [first | {"per_query": str(path.parent / first["per_query"])} | task], **changes}
        copies.append(folder / path.name)
        copies[-1].write_text(json.dumps(content))
    return [str(path) for path in copies]


def test_query_that_stays_in_its_ranking_is_marked(evaluated: list[Path], tmp_path: Path) -> None:
    results = first_task_only(evaluated, tmp_path, {"exclude_self": False})
    page = written(report(results, tmp_path / "out", queries=2, neighbours=3))
    assert len(page.all("li", "itself")) == 4
    assert "= itself" in page.text
    assert "the query stays in its own ranking" in page.text
    assert "there is nothing to plot" in page.text


def test_without_embeddings_the_grid_is_left_out_with_a_sentence(evaluated: list[Path], tmp_path: Path) -> None:
    results = first_task_only(evaluated, tmp_path, {}, embeddings=str(tmp_path / "gone"))
    page = written(report(results, tmp_path / "out"))
    assert not page.all("article", "change")
    assert "The neighbour grid of same & same is left out. There are no embeddings of these images by a" in page.text
    # Beside the results files they are found again.
    shutil.copytree(evaluated[0].parent / "embeddings", tmp_path / "embeddings")
    assert written(report(results, tmp_path / "out")).all("article", "change")


def test_without_images_the_grid_is_left_out_with_a_sentence(evaluated: list[Path], tmp_path: Path) -> None:
    results = first_task_only(evaluated, tmp_path, {"data": "/gone.parquet"})
    page = written(report(results, tmp_path / "out"))
    assert not page.all("article", "change")
    assert "The neighbour grid of same & same is left out." in page.text
    assert "/gone.parquet" in page.text


def test_one_model_makes_a_page_without_a_comparison(evaluated: list[Path], tmp_path: Path) -> None:
    page = written(report(first_task_only(evaluated[:1], tmp_path, {}), tmp_path))
    assert "What a reaches" in page.text
    assert "it takes two models" in page.text
    assert not page.all("td", "best")


def test_missing_values_are_dashes_in_the_page_and_null_in_json(evaluated: list[Path], tmp_path: Path) -> None:
    content = json.loads(evaluated[1].read_text())
    content["tasks"] = content["tasks"][:1]
    content["missing"] = [{"title": "COCO", "reason": "there is no folder coco"}]
    (tmp_path / "b.json").write_text(json.dumps(content))
    page = written(report([str(evaluated[0]), str(tmp_path / "b.json")], tmp_path / "out", queries=0))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"][1]["words"] is None
    assert "COCO was not measured: there is no folder coco." in page.text
    assert [cell["class"] for cell in page.all("td", "best")] == ["best"]
    assert page.text.count(" - ") == 3
    assert not page.all("article", "change")


def test_diagnostics_of_the_embedding_space_are_shown_where_there_are_any(
    evaluated: list[Path], tmp_path: Path
) -> None:
    space = {"modality_gap": 0.8214, "probe_accuracy": 1.0, "alignment": 1.25}
    plain, measured = first_task_only(evaluated, tmp_path, {})
    content = json.loads(Path(measured).read_text())
    content["tasks"][0]["space"] = space
    Path(measured).write_text(json.dumps(content))
    page = written(report([plain, measured], tmp_path / "out", queries=0))
    assert "model task modality gap probe accuracy alignment b same & same 0.821 1.000 1.250" in page.text
    assert r"| b | same \& same | 0.821 | 1.000 | 1.250 |" in (tmp_path / "out" / "report.md").read_text()
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["joint_spaces"]
    assert rows == [{"model": "b", "task": "same & same", **space}]
    assert "modality gap" not in written(report(plain, tmp_path / "without", queries=0)).text


def test_captions_are_shown_with_images_and_similarities(
    evaluated: list[Path], mined: Path, train: Path, tmp_path: Path
) -> None:
    results = first_task_only(evaluated, tmp_path, {})
    page = written(report(results, tmp_path, captions=mined, images=str(train), queries=0))
    assert len(page.all("article", "example")) == 6
    assert "mined" in page.text
    assert "for 32 images" in page.text
    assert (tmp_path / "captions.svg").is_file()
    assert (tmp_path / "captions.png").is_file()
    without = written(report(results, tmp_path, captions=mined, queries=0))
    assert not without.all("article", "example")
    assert "is not the table that was mined for" in without.text


def test_wrong_parameters_are_refused(evaluated: list[Path], tmp_path: Path) -> None:
    results = [str(path) for path in evaluated]
    with pytest.raises(ConfigError, match="neighbours 0"):
        report(results, tmp_path, neighbours=0)
    with pytest.raises(ConfigError, match="no results of 'c'"):
        report(results, tmp_path, baseline="c")
    with pytest.raises(ArtefactError, match="is not an artefact"):
        report(results, tmp_path, captions=tmp_path)
    with pytest.raises(ArtefactError, match="is not there"):
        report([str(tmp_path / "none.json")], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", ".", "none.json", "/dev/null/x", "a\0b", "x" * 300])
def test_what_is_no_file_is_refused_by_its_name(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for results in ([path], path):
        with pytest.raises(ArtefactError, match="give the JSON files that `mcip evaluate` wrote"):
            report(results, tmp_path / "out")
    with pytest.raises(ConfigError, match="There are no results"):
        report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(evaluated: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"cannot be written to .*file"):
        report(first_task_only(evaluated, tmp_path, {}), tmp_path / "file", queries=0)


def test_the_report_is_its_path_and_shows_the_table(evaluated: list[Path], tmp_path: Path) -> None:
    class Evaluation(list[str]):
        paths = first_task_only(evaluated, tmp_path, {})

    content = json.loads(evaluated[1].read_text())
    name = "mk[/bold]d & <b>"
    Path(Evaluation.paths[1]).write_text(json.dumps(content | {"model": name, "tasks": content["tasks"][:1]}))
    result = report(Evaluation(), tmp_path / "out", queries=0)
    assert Path(result) == tmp_path / "out" / "report.html"
    assert result.comparison.headline_model == name
    text = io.StringIO()
    Console(file=text, width=100).print(result)
    assert name in text.getvalue()
    assert str(result.path) in "".join(text.getvalue().splitlines())
    shown = Page(result._repr_html_())
    assert name in shown.text
    assert len(shown.all("tr")) == 4
    assert name in written(result).text


def test_importing_the_stage_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "matplotlib", "PIL", "jinja2", "rich", "pyarrow", "datasets", "pandas")
    code = f"import sys, mcip.stages.report; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_captions_and_images_may_be_objects(evaluated: list[Path], mined: Path, train: Path, tmp_path: Path) -> None:
    results = first_task_only(evaluated, tmp_path, {})
    page = written(report(results, tmp_path, captions=MinedCaptions(mined), images=read_table(train), queries=0))
    assert len(page.all("article", "example")) == 6
