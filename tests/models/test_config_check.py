"""Configurations from elsewhere: they open nothing outside the model's folder, and describe no absurd sizes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from mcip import models
from mcip.core.errors import ModelError
from mcip.models import Model
from mcip.models.config_check import check_config


def changed(config: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *outer, last = key.split(".")
    inner = config
    for name in outer:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "/etc/passwd"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "../secret.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "inner/../../secret.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "~/secret.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "link.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "missing.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "\0.gz"),
        ("model_cfg.text_cfg.tokenizer_kwargs.vocab_file", "vocab.txt"),
        ("model_cfg.text_cfg.tokenizer_kwargs.cache_dir", "cache"),
        ("model_cfg.text_cfg.tokenizer_kwargs.anything", "/etc/passwd"),
        ("model_cfg.text_cfg.tokenizer_kwargs.additional_special_tokens", ["../x"]),
        ("model_cfg.text_cfg.hf_tokenizer_name", "/etc"),
        ("model_cfg.text_cfg.hf_tokenizer_name", "../other"),
        ("model_cfg.text_cfg.hf_tokenizer_name", "."),
        ("model_cfg.text_cfg.hf_model_name", "a/b/c"),
        ("model_cfg.text_cfg.hf_model_name", "~x"),
        ("model_cfg.vision_cfg.timm_model_name", "local-dir:/etc"),
        ("model_cfg.vision_cfg.timm_model_name", "file:///etc"),
    ],
)
def test_a_configuration_names_no_file_outside_its_folder(
    key: str, value: object, tiny_config: dict[str, Any], tiny_folder: Path
) -> None:
    (tiny_folder.parent / "secret.gz").write_bytes(b"")
    (tiny_folder / "link.gz").symlink_to(tiny_folder.parent / "secret.gz")
    config = changed(tiny_config, key, value)
    (tiny_folder / "open_clip_config.json").write_text(json.dumps(config))
    loads: list[Callable[[], Model]] = [lambda: models.load(tiny_folder), lambda: models.from_config(config)]
    for load in loads:
        with pytest.raises(ModelError, match=rf"{key.rpartition('.')[2]}.* may (only|not)|there is no such file"):
            load()


def test_a_name_that_is_a_folder_here_is_not_opened(
    tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roberta-base").mkdir()
    with pytest.raises(ModelError, match="hf_model_name 'roberta-base' is also a file or folder here"):
        models.from_config(changed(tiny_config, "model_cfg.text_cfg.hf_model_name", "roberta-base"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_cfg.text_cfg.layers", 10**9),
        ("model_cfg.vision_cfg.layers", [3, 4, 10**6, 3]),
        ("model_cfg.text_cfg.vocab_size", 10**12),
        ("model_cfg.text_cfg.context_length", 10**6),
        ("model_cfg.vision_cfg.width", 10**6),
        ("model_cfg.embed_dim", 10**6),
        ("model_cfg.vision_cfg.image_size", 10**5),
        ("preprocess_cfg.size", 10**5),
        ("model_cfg.init_logit_scale", float("nan")),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(
    key: str, value: object, tiny_config: dict[str, Any], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("the model was built")

    monkeypatch.setattr(open_clip, "create_model", build)
    config = changed(tiny_config, key, value)
    (tiny_folder / "open_clip_config.json").write_text(json.dumps(config))
    loads: list[Callable[[], Model]] = [lambda: models.load(tiny_folder), lambda: models.from_config(config)]
    for load in loads:
        with pytest.raises(ModelError, match=rf"was refused: {key.partition('.')[2]} is .*, which no model has"):
            load()


def test_every_configuration_of_open_clip_is_allowed() -> None:
    for name in open_clip.list_models():
        check_config(open_clip.get_model_config(name), name)
