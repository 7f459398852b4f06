"""Every example runs from an empty folder, and gives what its first lines promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mcip
from mcip.reporting.evaluation import Evaluation

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def same_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples import the package under test, whatever folder they start in, and one thread is enough for them."""
    monkeypatch.setenv("PYTHONPATH", str(Path(mcip.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(name: str, folder: Path) -> str:
    """The standard output of an example that is started in `folder`."""
    command = [sys.executable, str(EXAMPLES / name)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def measured(folder: Path, task: str) -> dict[str, float]:
    """The headline of a task by model, in percent, from the results files in a folder."""
    results = Evaluation.read(sorted(folder.glob("*.json")))
    return {result.model: result.measured[task].percent or 0.0 for result in results}


def test_a_tuned_model_is_loaded_by_open_clip_alone(tmp_path: Path) -> None:
    cosines = re.findall(r"(open_clip|mcip): +(-?\d\.\d{6})", run("plain_open_clip.py", tmp_path))
    assert len(cosines) == 2
    by_open_clip, by_mcip = (float(cosine) for _, cosine in cosines)
    assert by_open_clip == pytest.approx(by_mcip, abs=2e-6)


def test_own_labels_make_image_search_better(tmp_path: Path) -> None:
    run("tune_own_labels.py", tmp_path)
    percent = measured(tmp_path / "runs/tune-own-labels/results", "i2i")
    assert percent["mcip"] > percent["base"] + 5


def test_a_loss_of_ones_own_makes_image_search_better(tmp_path: Path) -> None:
    run("custom_loss.py", tmp_path)
    percent = measured(tmp_path / "runs/custom-loss/results", "i2i")
    assert percent["cosface"] > percent["base"] + 5


def test_a_benchmark_of_ones_own_is_measured_and_reported(tmp_path: Path) -> None:
    output = run("own_benchmark.py", tmp_path)
    page = (tmp_path / "runs/own-benchmark/report.html").read_text(encoding="utf-8")
    for task in ("same product", "product by its neighbours", "shape by its name", "image by its caption"):
        assert task in output
        assert task in page


def test_a_program_asks_the_server(tmp_path: Path) -> None:
    hits = re.findall(r"^(\d\.\d{3})  (shop-\d+-\d)$", run("serve.py", tmp_path), re.MULTILINE)
    assert len(hits) == 3
    assert sorted(hits, reverse=True)[0][0] == hits[0][0]


def test_the_notebook_shows_images_and_tables(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "search.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert cells[0]["text/plain"] == "100"
    assert [shown.get("text/html", "").count("data:image/jpeg;base64,") for shown in cells[1:4]] == [6, 6, 6]
    frame = cells[4]["text/html"]
    assert "<th>score</th>" in frame
    assert frame.count("<tr") == 1 + 3


@pytest.mark.parametrize(("name", "word"), [("run.py", "flickr8k"), ("compare.py", "IsoCLIP")])
def test_the_examples_on_real_images_explain_themselves(name: str, word: str) -> None:
    command = [sys.executable, str(EXAMPLES / "real_pictures" / name), "--help"]
    assert word in subprocess.run(command, capture_output=True, text=True, check=True).stdout
