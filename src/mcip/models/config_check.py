"""Configurations from elsewhere: what they may name, and how large a model they may describe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mcip.core.errors import ModelError

# Far above every model of open_clip: what is larger can only be meant to fill the memory.
_LARGEST: Final = {
    "layers": 512, "image_size": 8192, "size": 8192, "width": 16_384, "embed_dim": 16_384, "context_length": 16_384,
}  # fmt: skip
_LARGEST_NUMBER: Final = 4_000_000
# Names of models on the hub or in timm: "roberta-base", "facebook/xlm-v-base", "hf-hub:timm/vit_tiny".
_NAME: Final = re.compile(r"(hf-hub:|hf_hub:)?\w[\w.\-]*(/\w[\w.\-]*)?", re.ASCII)
_NAME_KEYS: Final = ("hf_tokenizer_name", "hf_model_name", "timm_model_name")
_FILE_KEYS: Final = ("path", "file", "dir", "folder")
MERGES: Final = "bpe_path"


def check_config(config: Mapping[str, Any], origin: str, folder: Path | None = None) -> None:
    """Check that a configuration opens nothing outside its model's folder, and describes no model of absurd size.

    Args:
        config: A `model_cfg` or `preprocess_cfg`, as `open_clip_config.json` holds it.
        origin: What messages call it.
        folder: The model's folder, if it has one.

    Raises:
        ModelError: Which key is wrong, and why.
    """
    for key, value in _entries(config, ""):
        name = key.rpartition(".")[2]
        if isinstance(value, str):
            if name in _NAME_KEYS:
                _check_name(value, name, origin)
            elif name == MERGES:
                file_inside(value, folder, f"{key} of {origin}")
            elif name.rpartition("_")[2] in _FILE_KEYS or any(mark in value for mark in "/\\~"):
                raise ModelError(f"{origin} was refused: {key} is {value!r}, but a configuration may not name files.")
        elif isinstance(value, int | float) and not abs(value) <= _LARGEST.get(name, _LARGEST_NUMBER):
            raise ModelError(f"{origin} was refused: {key} is {value}, which no model has.")


def file_inside(value: str, folder: Path | None, what: str) -> Path:
    """The file that a configuration names, which must lie in the model's folder.

    Raises:
        ModelError: It lies elsewhere, or is not there.
    """
    outside = Path(value).is_absolute() or value.startswith("~") or "\0" in value
    path = None if folder is None or outside else (folder / value).resolve()
    if folder is None or path is None or not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{what} is {value!r}: it may only name a file in the model's folder. Put the file there.")
    if not path.is_file():
        raise ModelError(f"{what} is {value!r}, but there is no such file in {folder}.")
    return path


def _entries(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entries(inner, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _entries(inner, key)
    else:
        yield key, value


def _check_name(value: str, key: str, origin: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise ModelError(
            f"{origin} was refused: {key} is {value!r}, but it may only be a name as the Hugging Face hub and timm "
            "have them, not a path."
        )
    if key == "hf_model_name" and Path(value).exists():
        raise ModelError(
            f"{origin} was refused: its {key} {value!r} is also a file or folder here, which would be opened instead. "
            "Run this in another folder."
        )
