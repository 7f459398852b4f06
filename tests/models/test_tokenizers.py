"""Tokenizers: open_clip's own, those of the hub, and what is said where they are missing."""

from __future__ import annotations

import copy
import sys
import types
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
        self.seen: list[str] = []

    def __call__(self, texts: list[str], max_length: int, **_: object) -> types.SimpleNamespace:
        self.seen += texts
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
            if str(place).startswith("nowhere"):
                raise OSError("no such repository")
            made.append(StubTokenizer(place, options))
            return made[-1]

    module = types.ModuleType("transformers")
    module.AutoTokenizer = AutoTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    return made


def test_siglip_text_is_cleaned_as_its_configuration_says(stub_transformers: list[StubTokenizer]) -> None:
    model = models.from_config(TINY_SIGLIP)
    model.encode(["two_dogs", "A Photo, of a CAT."])
    assert [stub.place for stub in stub_transformers] == ["timm/ViT-B-16-SigLIP"]
    assert stub_transformers[0].seen == ["two dogs", "a photo of a cat"]


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
    with pytest.raises(ModelError, match=r"tokenizer nowhere/nothing of it: no such repository.*once with a network"):
        tokenizers.make_tokenizer(config, "it")
