"""A model in ONNX embeds as PyTorch does, and is written only where it does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, ModelError
from mcip.models import OnnxModel, SavedOnnx, onnx_export
from mcip.models.onnx_export import write_onnx
from mcip.stages.export import export
from mcip.toyshop.tables import Slice, draw_product

TEXTS = ["a red mug", "", "two dogs on a red sofa " * 20, "It's a café"]


@pytest.fixture(scope="module")
def renders() -> list[Image.Image]:
    """Toyshop's images, some of them thin, grey or turned."""
    from mcip.data import decode

    rows = [row for number in range(4) for row in draw_product(Slice("toys", 105, 4, 2), number)]
    images = [decode(row["image"]["bytes"]) for row in rows]
    return [*images, images[0].convert("L"), images[1].resize((300, 20)), images[2].crop((0, 0, 10, 40)), images[3]]


def least(expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> float:
    return float((expected * actual).sum(1).min())


def test_embeddings_are_those_of_pytorch(onnx: Path, base: Path, renders: list[Image.Image]) -> None:
    model, exported = models.load(base), OnnxModel(onnx)
    assert least(model.encode(TEXTS, kind="text"), exported.encode_texts(TEXTS, batch_size=3)) > 0.9999
    assert least(model.encode(renders), exported.encode_images(renders, batch_size=5)) > 0.9999
    paper = exported.encode_images(renders, "paper")
    assert least(model.encode(renders, transform="paper"), paper) > 0.9999
    assert exported.encode_texts([]).shape == exported.encode_images([]).shape == (0, model.embed_dim)
    assert paper.dtype == np.float32


def test_pixels_are_those_of_the_transform_to_the_last_bit(onnx: Path, base: Path, renders: list[Image.Image]) -> None:
    exported, transform = OnnxModel(onnx), models.load(base).transform()
    for image in renders:
        np.testing.assert_array_equal(exported.prepare(image), transform.prepare(image).numpy())


def test_a_folder_says_what_it_is(onnx: Path, base: Path) -> None:
    saved, model = SavedOnnx(onnx), models.load(base)
    assert saved.config["fingerprint"] == saved.load().fingerprint == model.fingerprint
    assert saved.load().source == str(base)
    assert min(saved.config["cosine"].values()) > 0.9999
    assert sorted(path.name for path in onnx.iterdir()) == [
        "bpe.txt.gz",
        "image.onnx",
        "manifest.json",
        "onnx.json",
        "text.onnx",
    ]


def test_pytorch_is_not_imported_and_no_use_is_reported(onnx: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom PIL import Image\nfrom mcip.models import OnnxModel\n"
        f"model = OnnxModel({str(onnx)!r})\n"
        "model.encode_texts(['a mug']), model.encode_images([Image.new('RGB', (40, 30))])\n"
        "assert not {'torch', 'open_clip', 'datasets'} & set(sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Where ONNX Runtime reports its use, it numbers the machine here.
    assert not (tmp_path / "Microsoft").exists()


@pytest.fixture
def towers(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes the towers that are there already: making them takes long."""

    def copy(model: models.Model, folder: Path) -> bool:
        for name in ("image.onnx", "text.onnx"):
            shutil.copy(onnx / name, folder)
        return True

    monkeypatch.setattr(onnx_export, "_write_towers", copy)


@pytest.mark.usefixtures("towers")
def test_8_bits_are_checked_too(base: Path, onnx: Path, tmp_path: Path) -> None:
    saved = export(base, tmp_path / "small.onnx", format="onnx", quantize="int8")
    assert isinstance(saved, SavedOnnx)
    assert 0.99 <= min(saved.config["cosine"].values()) < 0.99999
    assert (saved.folder / "text.onnx").stat().st_size < 0.5 * (onnx / "text.onnx").stat().st_size


@pytest.mark.usefixtures("towers")
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_model_that_differs_is_not_written(
    base: Path, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    out = shutil.copytree(onnx, tmp_path / "out")
    method = f"encode_{kind}s"
    right = getattr(OnnxModel, method)

    def wrong(self: OnnxModel, inputs: list[Any]) -> np.ndarray[Any, Any]:
        vectors: np.ndarray[Any, Any] = right(self, inputs)
        vectors[-1] = -vectors[-1]
        return vectors

    monkeypatch.setattr(OnnxModel, method, wrong)
    with pytest.raises(ModelError, match=rf"the worst cosine of 64 {kind}s is -1.00000, but at least 0.9999"):
        write_onnx(models.load(base), out)
    assert (out / "onnx.json").read_bytes() == (onnx / "onnx.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["out"]


def test_what_is_in_the_way_is_kept(base: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="does not hold an ONNX model"):
        write_onnx(models.load(base), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_wrong_parameters(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for format onnx only"):
        export(base, tmp_path / "model.pth", quantize="int8")
    with pytest.raises(ConfigError, match="quantize is 'int4': it is one of none, int8"):
        export(base, tmp_path / "model", format="onnx", quantize="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="writes a folder"):
        export(base, tmp_path / "model.pth", format="onnx")


def test_damaged_folders_are_refused(onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no onnx\.json"):
        OnnxModel(tmp_path)
    folder = shutil.copytree(onnx, tmp_path / "onnx")
    (folder / "text.onnx").write_bytes(b"no model")
    with pytest.raises(ArtefactError, match=r"text\.onnx is damaged"):
        OnnxModel(folder)
    (folder / "manifest.json").unlink()  # as a folder that others made
    with pytest.raises(ModelError, match=r"text\.onnx cannot be opened"):
        OnnxModel(folder).encode_texts(["a mug"])
    config = json.loads((folder / "onnx.json").read_text())
    (folder / "onnx.json").write_text(json.dumps(config | {"format": 0}))
    with pytest.raises(ModelError, match="of another version"):
        OnnxModel(folder)
    (folder / "onnx.json").write_text("{")
    with pytest.raises((ArtefactError, ModelError)):
        OnnxModel(folder)
