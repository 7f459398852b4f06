"""Images are embedded by ONNX Runtime without PyTorch, to the vectors that PyTorch gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcip.core.choices import Decode, TransformName
from mcip.core.errors import ConfigError, McipError, ModelError
from mcip.data import image_transform
from mcip.data.pillow_transform import PillowTransform
from mcip.data.resize import ModelResize
from mcip.models import OnnxModel
from mcip.retrieval.index import Index
from mcip.retrieval.table import open_table
from mcip.stages import index_update, index_watch
from mcip.stages.index import index as build_index
from mcip.toyshop.tables import Slice, draw_product
from tests.images import file_bytes, noise_image

CODE = """
import sys
from mcip.cli.main import main
code = main(sys.argv[1:])
imported = {'torch', 'open_clip', 'torchvision'} & set(sys.modules)
assert not imported, imported
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        for row in draw_product(Slice("toys", stream=7, products=2, images=3), number):
            (folder / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
    return folder


@pytest.fixture
def quantized(onnx: Path, tmp_path: Path) -> Path:
    """An ONNX model that says of itself that it is quantized."""
    folder = shutil.copytree(onnx, tmp_path / "quantized")
    config = json.loads((folder / "onnx.json").read_text())
    (folder / "onnx.json").write_text(json.dumps(config | {"quantize": "int8"}))
    (folder / "manifest.json").unlink()
    return folder


def add(folder: Path, seed: int = 5) -> None:
    (folder / f"{seed}.png").write_bytes(file_bytes(noise_image(seed), "PNG"))


def backend_of(db: Path) -> str:
    return open_table(str(db)).identity.backend


def test_the_command_embeds_without_pytorch(folder: Path, base: Path, onnx: Path, tmp_path: Path) -> None:
    db, other = tmp_path / "onnx.lance", tmp_path / "torch.lance"
    command = ["index", folder, "--db", db, "--model", onnx, "--backend", "onnx", "--thumbnails", 16, "--workers", 1]
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert backend_of(db) == "onnx"
    found = Index(db, device="cpu")
    expected = build_index(str(folder), str(other), model=str(base), device="cpu").index
    names = sorted(expected.engine.table.read(["id"])["id"].to_pylist())
    assert sorted(found.engine.table.read(["id"])["id"].to_pylist()) == names
    assert min(float(found.vector(name) @ expected.vector(name)) for name in names) > 0.999
    # PyTorch can search it, too: the index finds the model that was exported.
    assert Index(db, device="cpu", backend="torch").search(text="a mug", k=2).paths()


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_the_onnx_model_is_found_as_for_queries(
    place: str, folder: Path, base: Path, onnx: Path, tmp_path: Path, embedded: list[int]
) -> None:
    db, model = tmp_path / "photos.lance", shutil.copytree(base, tmp_path / "model")
    shutil.copytree(onnx, db.with_name("photos.lance.onnx") if place == "beside" else model / "onnx")
    build_index(str(folder), str(db), model=str(model), device="cpu", backend="onnx")
    assert (embedded, backend_of(db)) == ([], "onnx")
    assert open_table(str(db)).identity.model == str(model)


def test_auto_goes_on_by_what_embedded_last(
    folder: Path, base: Path, onnx: Path, tmp_path: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(index_update, "note", notes.append)
    db, model = tmp_path / "photos.lance", shutil.copytree(onnx, tmp_path / "onnx")
    build_index(str(folder), str(db), model=str(model))
    add(folder)
    build_index(db=str(db))
    assert (embedded, backend_of(db)) == ([], "onnx")
    add(folder, seed=6)
    build_index(db=str(db), model=str(base), backend="torch", device="cpu")
    assert (embedded, backend_of(db)) == ([1], "torch")
    build_index(db=str(db), model=str(model), backend="onnx")
    shutil.rmtree(model)
    build_index(db=str(db), model=str(base), device="cpu")
    assert any("is gone: PyTorch embeds what is new" in note for note in notes)


def test_a_watched_folder_is_embedded_by_the_same_model(
    folder: Path, onnx: Path, tmp_path: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles")

    def change_once(index: Index, update: index_update.Update) -> None:
        add(folder)
        model, changes, _ = update.run()
        index.refresh()
        assert (changes.embedded, type(model), update.again(model).model) == (1, OnnxModel, model)

    monkeypatch.setattr(index_watch, "watch_index", change_once)
    indexed = build_index(str(folder), str(tmp_path / "photos.lance"), model=str(onnx), watch=True)
    assert (embedded, len(indexed.index)) == ([], len(list(folder.iterdir())))


def test_quantized_models_and_others_do_not_embed_into_one_index(
    folder: Path, base: Path, onnx: Path, quantized: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.lance", tmp_path / "second.lance"
    build_index(str(folder), str(first), model=str(base), device="cpu")
    build_index(str(folder), str(second), model=str(quantized))
    assert backend_of(second) == "onnx-int8"
    add(folder)
    with pytest.raises(ConfigError, match="was embedded by torch, and onnx-int8 would embed"):
        build_index(db=str(first), model=str(quantized))
    for model in (base, onnx):
        with pytest.raises(ConfigError, match="--backend onnx and an ONNX model of --quantize int8, or choose"):
            build_index(db=str(second), model=str(model), device="cpu", backend="torch" if model == base else "onnx")
    build_index(db=str(second))
    assert len(Index(second)) == len(list(folder.iterdir()))


@pytest.mark.parametrize(
    ("error", "parameters", "message"),
    [
        (ConfigError, {"backend": "tensorflow"}, "it is one of auto, onnx, torch"),
        (ConfigError, {"device": "cuda"}, "leave device, precision and ray out"),
        (ConfigError, {"precision": "bf16"}, "leave device, precision and ray out"),
        (ConfigError, {"ray": "local"}, "leave device, precision and ray out"),
        (ModelError, {}, r"mcip export \S+ \S+photos.lance.onnx --format onnx` makes one"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    error: type[McipError], parameters: dict[str, Any], message: str, folder: Path, base: Path, tmp_path: Path
) -> None:
    arguments = {"backend": "onnx", **parameters}
    with pytest.raises(error, match=message):
        build_index(str(folder), str(tmp_path / "photos.lance"), model=str(base), **arguments)
    assert not (tmp_path / "photos.lance").exists()


def test_other_weights_are_refused(folder: Path, base: Path, onnx: Path, tmp_path: Path) -> None:
    other = shutil.copytree(onnx, tmp_path / "other")
    config = json.loads((other / "onnx.json").read_text())
    (other / "onnx.json").write_text(json.dumps(config | {"fingerprint": "0" * 64}))
    (other / "manifest.json").unlink()
    build_index(str(folder), str(tmp_path / "photos.lance"), model=str(base), device="cpu")
    with pytest.raises(McipError, match="whose weights are not those"):
        build_index(db=str(tmp_path / "photos.lance"), model=str(other), backend="onnx")


@pytest.mark.parametrize("name", ["model", "paper"])
@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_pixels_are_those_of_the_transform_of_pytorch(name: TransformName, decode: Decode, mode: str) -> None:
    config = {"size": 32, "resize_mode": mode, "fill_color": 90}
    expected = image_transform(config, name, decode=decode)
    image = Image.effect_mandelbrot((403, 287), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    content = file_bytes(image, "JPEG")
    pixels, size = PillowTransform(ModelResize(expected.preprocess), name, decode).read(content)
    finished = expected.finish(expected.read(content)[0][None])[0].numpy()
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (expected.mean, expected.std))
    assert size == (403, 287)
    # To the bit where nothing is reduced; else by two filters, which differ by a level or two.
    worst = np.abs(pixels - 255 * (finished * std + mean)).max()
    assert worst < (0.01 if decode == "exact" else 4)
