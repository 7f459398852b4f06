"""Every kind of artefact records the hash of each of its files, and none opens one that is not what was written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mcip
from mcip import models
from mcip.core.artefacts import MANIFEST
from mcip.core.errors import ArtefactError, ModelError
from mcip.core.files import read_json
from mcip.data import read_table
from mcip.embeddings.caption_tokens import CaptionTokens, tokenize_captions
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.embeddings.store import Embeddings
from mcip.models.hf_export import SavedTransformers
from mcip.models.onnx_model import OnnxModel
from mcip.retrieval.adapted import Adapter
from mcip.stages.pretrain import pretrain

SOURCES = Path(mcip.__file__).parent
TRAINING: dict[str, Any] = {"steps": 1, "batch_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def kinds(
    train: Path, base: Path, onnx: Path, mined: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """An artefact of each kind, and what opens one: the stages open what they made when they are run again."""
    new = tmp_path_factory.mktemp("artefacts")
    trained: dict[str, Callable[[Path], Any]] = {
        "tuned": lambda out: mcip.tune(train, out, base, method="gpr-ft", **TRAINING),
        "aligned": lambda out: mcip.align(train, out, base, **TRAINING),
        "pretrained": lambda out: pretrain(train, out, base, **TRAINING),
        "adapted": lambda out: mcip.adapt(train, out, base, **TRAINING),
    }
    for kind, stage in trained.items():
        stage(new / kind)
    tokens = tokenize_captions(read_table(train), models.load(base), new / "caption-tokens")
    assert tokens.context_length == 16
    return {
        **{kind: (new / kind, stage) for kind, stage in trained.items()},
        "adapted": (new / "adapted", Adapter.open),
        "model": (base, models.load),
        "onnx": (onnx, OnnxModel),
        "transformers": (
            Path(mcip.export(base, new / "hf", format="hf")), lambda out: SavedTransformers(out).manifest
        ),
        "captions": (mined, MinedCaptions),
        "caption-tokens": (new / "caption-tokens", CaptionTokens),
        "embeddings": (Path(mcip.embed(train, new / "embeddings", base, device="cpu")), Embeddings),
    }  # fmt: skip


def test_each_file_of_each_kind_is_checked(
    kinds: dict[str, tuple[Path, Callable[[Path], Any]]], tmp_path: Path
) -> None:
    for kind, (made, opened) in kinds.items():
        folder = shutil.copytree(made, tmp_path / kind)
        assert read_json(folder / MANIFEST)["kind"] == kind
        opened(folder)
        files = read_json(folder / MANIFEST)["files"]
        assert files, f"{kind} records no hashes"
        for name in files:
            content = (folder / name).read_bytes()
            middle = len(content) // 2
            (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
            with pytest.raises((ArtefactError, ModelError), match=rf"{re.escape(name)} is (damaged|not valid JSON)"):
                opened(folder)
            (folder / name).write_bytes(content)


def test_there_are_no_other_kinds(kinds: dict[str, tuple[Path, Callable[[Path], Any]]]) -> None:
    """`improved` is opened as the stages open theirs; a results file has no manifest."""
    found = re.compile(r'^_?KIND(?:: Final)? = "([\w-]+)"', re.MULTILINE)
    declared = {kind for path in SOURCES.rglob("*.py") for kind in found.findall(path.read_text(encoding="utf-8"))}
    assert declared == kinds.keys() | {"improved", "results"}


def test_weights_of_a_saved_model_are_checked_by_their_file_too(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    for model in (base, models.load(base)):
        with pytest.raises(ArtefactError, match=r"safetensors is damaged.* remove .*manifest\.json"):
            models.load(model, weights)
    (folder / "manifest.json").unlink()
    assert models.load(folder).fingerprint != models.load(base).fingerprint
