"""Queries embedded by an ONNX model find what PyTorch finds, and PyTorch is not imported for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.models import OnnxModel
from mcip.retrieval.ann.exact import exact_search
from mcip.retrieval.index import Index


@pytest.fixture(scope="module")
def db(indexed: Path, onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with its ONNX model beside it."""
    folder = tmp_path_factory.mktemp("with-onnx")
    shutil.copytree(onnx, folder / "photos.lance.onnx")
    return shutil.copytree(indexed, folder / "photos.lance")


def search(*arguments: object, check: str = "") -> list[dict[str, Any]]:
    """The hits of `mcip search` in a process of its own."""
    code = f"import sys\nfrom mcip.cli.main import main\ncode = main(sys.argv[1:])\n{check}\nsys.exit(code)"
    command = [sys.executable, "-c", code, "search", *map(str, arguments), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hits: list[dict[str, Any]] = json.loads(done.stdout)["hits"]
    return hits


NOT_IMPORTED = (
    "imported = {'torch', 'open_clip', 'torchvision', 'datasets'} & set(sys.modules)\nassert not imported, imported"
)


@pytest.mark.parametrize("kind", ["text", "both"])
def test_the_command_finds_the_same_without_pytorch(db: Path, album: Path, kind: str) -> None:
    image = sorted(album.rglob("*.jpg"))[4]
    query = [db, "a red mug", *([image] if kind == "both" else []), "--where", "width >= 64", "-k", 5]
    hits = search(*query, check=NOT_IMPORTED)
    expected = Index(db, device="cpu", backend="torch").search(
        image if kind == "both" else None, "a red mug", where="width >= 64", k=5
    )
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=2e-3)


def test_an_onnx_model_may_be_given(indexed: Path, onnx: Path) -> None:
    assert search(indexed, "a mug", "--model", onnx, "-k", 3, check=NOT_IMPORTED) == search(
        indexed, "a mug", "--model", onnx, "--backend", "onnx", "-k", 3, check=NOT_IMPORTED
    )


def test_the_model_folder_may_hold_it(base: Path, onnx: Path, indexed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    shutil.copytree(onnx, folder / "onnx")
    encoder = Index(indexed, folder, "cpu").encoder
    assert isinstance(encoder.onnx, OnnxModel)
    np.testing.assert_allclose(encoder.texts(["a mug"]), models.load(base).encode(["a mug"]), atol=1e-4)


def test_pytorch_is_used_where_it_is_asked_for(db: Path, base: Path) -> None:
    assert Index(db, device="cpu").encoder.onnx is not None
    assert Index(db, device="cpu", backend="torch").encoder.onnx is None
    assert Index(db, models.load(base)).encoder.onnx is None
    with pytest.raises(ConfigError, match="it is one of auto, onnx, torch"):
        Index(db, backend="tensorflow")  # type: ignore[arg-type]


def test_a_missing_model_is_named(indexed: Path, base: Path) -> None:
    with pytest.raises(ModelError, match=rf"mcip export {base} {indexed}\.onnx --format onnx"):
        Index(indexed, device="cpu", backend="onnx").encode_texts(["a mug"])


def test_a_model_of_other_weights_is_not_used(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(db.parent, tmp_path / "other") / db.name
    config = other.with_name("photos.lance.onnx") / "onnx.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fingerprint": "0" * 64}))
    (config.parent / "manifest.json").unlink()
    with pytest.raises(ModelError, match="an ONNX model of other weights"):
        Index(other, device="cpu", backend="onnx").encode_texts(["a mug"])
    with pytest.raises(ModelError, match="an ONNX model of other weights"):
        Index(other, config.parent, "cpu").encode_texts(["a mug"])
    index = Index(other, device="cpu")
    assert index.encoder.onnx is None
    assert "PyTorch embeds the query" in capsys.readouterr().err
    assert index.encode_texts(["a mug"]).shape == (1, 16)


@pytest.mark.parametrize("subset", [None, np.arange(0, 500, 2)])
def test_exact_search_is_the_same_without_pytorch(
    subset: np.ndarray[tuple[int], np.dtype[np.int64]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    vectors = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(500, 16)))).half().numpy()
    queries = random.normal(size=(3, 16)).astype(np.float32)
    expected = exact_search(vectors, queries, 10, subset)
    monkeypatch.delitem(sys.modules, "torch")
    scores, numbers = exact_search(vectors, queries, 10, subset)
    np.testing.assert_array_equal(scores, expected[0])
    np.testing.assert_array_equal(numbers, expected[1])
