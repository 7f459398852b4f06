"""Tokenizers: open_clip's own, those of the hub, and what is said where they are missing."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import shutil
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from mcip import models
from mcip.core.errors import ModelError
from mcip.models import Model, tokenizers
from tests.tiny import TINY_SIGLIP, pixels_for


def test_bpe_is_open_clips_own_with_its_context_length_and_cleaning(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path
) -> None:
    texts = ["A  Red CAT!", "l&amp;b", "x " * 40]
    expected = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(texts)
    assert expected.shape == (3, 12)
    assert torch.equal(tiny.tokenizer(texts), expected)
    assert torch.equal(tiny.tokenizer(["A  Red CAT!"]), tiny.tokenizer(["a red cat!"]))
    config = copy.deepcopy(tiny_config)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    canonical = models.from_config(config)
    assert torch.equal(canonical.tokenizer(["A  Red CAT!"]), canonical.tokenizer(["a red cat"]))


def test_without_transformers_images_work_and_texts_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    model = models.from_config(TINY_SIGLIP)
    assert model.embed_pixels(pixels_for(model, 1)).shape == (1, 64)
    with pytest.raises(ModelError, match=r"pip install 'mcip\[siglip\]'"):
        model.encode(["a cat"])
    with pytest.warns(UserWarning, match="saved without the files of its tokenizer"):
        folder = models.save(model, tmp_path / "model")
    assert models.load(folder).fingerprint == model.fingerprint


class StubTokenizer:
    """Stands for the tokenizer of `transformers`: notes what it is given, and writes its files."""

    def __init__(self, place: str, options: dict[str, object]) -> None:
        self.place = place
        self.options = options
        self.tokenized: list[str] = []

    def __call__(self, texts: list[str], max_length: int, **_: object) -> types.SimpleNamespace:
        self.tokenized += texts
        return types.SimpleNamespace(input_ids=torch.ones(len(texts), max_length, dtype=torch.int64))

    def save_pretrained(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"):
            (Path(folder) / name).write_text("{}")


@pytest.fixture
def stub_transformers(monkeypatch: pytest.MonkeyPatch) -> list[StubTokenizer]:
    made: list[StubTokenizer] = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(place: str, **options: object) -> StubTokenizer:
            if "nowhere" in str(place):
                raise OSError("no such repository")
            made.append(StubTokenizer(place, options))
            return made[-1]

    module = types.ModuleType("transformers")
    module.AutoTokenizer = AutoTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    monkeypatch.setattr(tokenizers, "fetch_files", lambda repo, *_: Path("cache") / repo)
    return made


def test_siglip_text_is_cleaned_as_its_configuration_says(stub_transformers: list[StubTokenizer]) -> None:
    model = models.from_config(TINY_SIGLIP)
    model.encode(["two_dogs", "A Photo, of a CAT."])
    assert [stub.place for stub in stub_transformers] == ["cache/timm/ViT-B-16-SigLIP"]
    assert stub_transformers[0].tokenized == ["two dogs", "a photo of a cat"]


def test_a_configuration_cannot_make_a_tokenizer_run_code(stub_transformers: list[StubTokenizer]) -> None:
    config = copy.deepcopy(TINY_SIGLIP)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    models.from_config(config).encode(["a cat"])
    assert stub_transformers[0].options["trust_remote_code"] is False


def test_a_saved_folder_carries_its_tokenizer(stub_transformers: list[StubTokenizer], tmp_path: Path) -> None:
    first = models.save(models.from_config(TINY_SIGLIP), tmp_path / "first")
    again = models.load(first)
    again.encode(["a cat"])
    assert stub_transformers[-1].place == str(first)
    open_clip.get_tokenizer(f"local-dir:{first}")
    second = models.save(models.load(first), tmp_path / "second")
    assert (second / "spiece.model").is_file()
    assert (second / "tokenizer.json").is_file()


def test_a_tokenizer_that_cannot_be_had_is_a_clear_error(stub_transformers: list[StubTokenizer]) -> None:
    config = copy.deepcopy(TINY_SIGLIP["model_cfg"])
    config["text_cfg"]["hf_tokenizer_name"] = "nowhere/nothing"
    with pytest.raises(
        ModelError, match=r"tokenizer nowhere/nothing of it: no such repository. Images can be embedded without it"
    ):
        tokenizers.make_tokenizer(config, "it")


def test_threads_take_turns_with_a_tokenizer_that_changes_itself(
    stub_transformers: list[StubTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def call(self: StubTokenizer, texts: list[str], max_length: int, **_: object) -> types.SimpleNamespace:
        inside.append(1)
        overlaps.append(len(inside))
        time.sleep(0.001)
        inside.pop()
        return types.SimpleNamespace(input_ids=torch.ones(len(texts), max_length, dtype=torch.int64))

    monkeypatch.setattr(StubTokenizer, "__call__", call)
    model = models.from_config(TINY_SIGLIP)
    tokenizer = pickle.loads(pickle.dumps(model.tokenizer))  # noqa: S301 - made here
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(tokenizer, [["a cat"]] * 40))
    assert overlaps == [1] * 40


def bpe_config(tiny_config: dict[str, Any], value: str) -> dict[str, Any]:
    config = copy.deepcopy(tiny_config)
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": value}
    return config


def test_merges_in_the_models_folder_are_used_and_saved(
    tiny_config: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    merges = Path(open_clip.tokenizer.default_bpe())
    (tiny_folder / "own").mkdir()
    shutil.copy(merges, tiny_folder / "own" / "merges.gz")
    (tiny_folder / "manifest.json").unlink()
    (tiny_folder / "open_clip_config.json").write_text(json.dumps(bpe_config(tiny_config, "own/merges.gz")))
    expected = open_clip.SimpleTokenizer(context_length=12)(["a red cat"])
    saved = models.save(models.load(tiny_folder), tmp_path / "saved")
    for folder in (tiny_folder, saved):
        assert torch.equal(models.load(folder).tokenizer(["a red cat"]), expected)


def test_merges_that_unpack_without_end_are_refused(tiny_config: dict[str, Any], tiny_folder: Path) -> None:
    with gzip.open(tiny_folder / "merges.gz", "wb") as file:
        for _ in range(70):
            file.write(bytes(1_000_000))
    (tiny_folder / "manifest.json").unlink()
    (tiny_folder / "open_clip_config.json").write_text(json.dumps(bpe_config(tiny_config, "merges.gz")))
    with pytest.raises(ModelError, match=r"merges.gz was refused: it unpacks to more than 64,000,000 bytes"):
        models.load(tiny_folder).encode("a cat")
    (tiny_folder / "merges.gz").write_bytes(b"no gzip")
    with pytest.raises(ModelError, match=r"merges.gz is not a file of BPE merges"):
        models.load(tiny_folder).encode("a cat")
