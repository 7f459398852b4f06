"""Validation during training gives the numbers of `mcip.evaluate`, and runs only what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcip import models
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.evaluation.live import LiveEncoder
from mcip.evaluation.validation import Subsample, Validation, validation_table
from mcip.stages.align import align
from mcip.stages.evaluate import evaluate
from mcip.stages.tune import tune
from tests.evaluation import layouts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benchmarks of four kinds, all of whose images can be read."""
    root = tmp_path_factory.mktemp("validation")
    layouts.gpr1200(root)
    layouts.cub(root)
    layouts.aircraft(root)
    layouts.objectnet(root)
    layouts.flickr30k(root)
    layouts.coco(root)
    return root


@pytest.fixture(scope="module")
def quick(folder: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The mean of each kind by `mcip evaluate --suite quick`."""
    out = tmp_path_factory.mktemp("results")
    (path,) = evaluate([f"m={base}"], out, suite="quick", data=str(folder), allow_counts=True).paths
    found: dict[str, list[float]] = {}
    for entry in read_json(path)["tasks"]:
        found.setdefault(entry["kind"], []).append(entry["metrics"][entry["headline"]])
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def test_a_table_scores_what_evaluate_measures(val: Path, base: Path, tmp_path: Path) -> None:
    (path,) = evaluate([f"m={base}"], tmp_path, data=str(val)).paths
    measured = {entry["name"]: entry["metrics"] for entry in read_json(path)["tasks"]}
    scores = Validation(models.load(base), read_table(val), "both", CPU)()
    assert scores == pytest.approx({"i2i_map": measured["i2i"]["map"], "t2i_r5": measured["t2i"]["r5"]}, abs=1e-6)


def test_quick_scores_what_evaluate_measures(folder: Path, base: Path, quick: dict[str, float]) -> None:
    held_out = validation_table("unused", None, f"quick:{folder}", None)
    scores = Validation(models.load(base), held_out, "image", CPU)()
    names = {"i2i": "i2i_map", "knn": "knn_top1", "zero-shot": "zero-shot_top1", "t2i": "t2i_r5"}
    assert scores == pytest.approx({names[kind]: value for kind, value in quick.items()}, abs=1e-6)


def test_quick_while_tuning_and_realigning(
    train: Path, folder: Path, base: Path, quick: dict[str, float], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "steps": 2, "batch_size": 8, "lr": 1e-3, "device": "cpu", "validation": f"quick:{folder}", "validate_every": 1,
    }  # fmt: skip
    tune(str(train), tmp_path / "tuned", str(base), method="gpr-ft", select="knn_top1", **settings)
    found = read_json(tmp_path / "tuned" / "manifest.json")["validation"]
    assert found["0"]["i2i_map"] == pytest.approx(quick["i2i"], abs=1e-6)
    assert list(found) == ["0", "1", "2"]
    align(str(train), tmp_path / "aligned", str(base), **settings)
    found = read_json(tmp_path / "aligned" / "manifest.json")["validation"]
    # Image to image and k-NN cannot change while the image tower is locked.
    assert set(found["0"]) == {"zero-shot_top1", "t2i_r5"}


@pytest.mark.parametrize(
    ("trained", "images", "captions"), [("image", 6, 0), ("text", 0, 1), ("both", 6, 1)]
)  # fmt: skip
def test_a_locked_tower_runs_only_at_the_start(
    folder: Path, base: Path, trained: Any, images: int, captions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("_encode_images", "_encode_captions"):
        method = getattr(LiveEncoder, name)

        def counted(self: LiveEncoder, *args: Any, name: str = name, method: Any = method) -> Any:
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(LiveEncoder, name, counted)
    held_out = validation_table("unused", None, f"quick:{folder}", None)
    validation = Validation(models.load(base), held_out, trained, CPU)
    first = validation()
    calls.clear()
    assert validation() == first
    # Images: GPR1200, CUB, two splits of Aircraft, ObjectNet, Flickr30k, COCO. The texts of COCO are among Flickr30k's.
    assert (calls.count("_encode_images"), calls.count("_encode_captions")) == (images + (trained != "text"), captions)


@pytest.mark.parametrize(("cache_gb", "kept"), [(1.0, 3), (2.5 * 15 * 3 * 32 * 32 / 1e9, 2), (0.0, 0)])
def test_the_pixels_of_all_tables_share_one_bound(val: Path, base: Path, cache_gb: float, kept: int) -> None:
    encoder = LiveEncoder(models.load(base), "image", CPU, 0, "fp32", cache_gb)
    tables = [read_table(val).subset(np.roll(np.arange(15), shift).tolist()) for shift in range(3)]
    for table in tables:
        encoder.images(table, "model")
    assert sum(pixels.cached for pixels in encoder._pixels.values()) == kept


def test_the_fingerprint_of_quick_is_that_of_its_content(folder: Path, tmp_path: Path) -> None:
    layouts.gpr1200(tmp_path)
    one, other = (validation_table("", None, f"quick:{root}", None) for root in (folder, tmp_path))
    assert isinstance(one, Subsample)
    assert isinstance(other, Subsample)
    assert one.fingerprint != other.fingerprint
    before = other.fingerprint
    (tmp_path / "GPR1200" / "images" / "0_0_x.jpg").unlink()
    again = validation_table("", None, f"quick:{tmp_path}", None)
    assert again.fingerprint != before


def test_nothing_to_validate_on(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match="There is no folder nowhere"):
        validation_table("", None, "quick:nowhere", None)
    layouts.gpr1200(tmp_path)
    held_out = validation_table("", None, f"quick:{tmp_path}", None)
    with pytest.raises(DataError, match=r"quick:.* has nothing to validate on: it needs captions"):
        Validation(models.load(base), held_out, "text", CPU)


def test_no_readable_image_is_an_error(base: Path, tmp_path: Path) -> None:
    for number in range(200):
        path = tmp_path / str(number // 2) / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="are unreadable, more than"):
        Validation(models.load(base), read_table(tmp_path), "image", CPU)()
