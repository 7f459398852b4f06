"""Tokenizers: open_clip's own BPE at once, those of Hugging Face only where text is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import open_clip
from torch import Tensor

from mcip.core.errors import ModelError

Tokenizer = Callable[[list[str]], Tensor]
# There is one of these in every folder with a tokenizer of Hugging Face.
_CONFIG: Final = "tokenizer_config.json"
_FILES: Final = ("*token*.json", "vocab.*", "merges.txt", "*.model")


def make_tokenizer(model_cfg: Mapping[str, Any], source: str, folder: Path | None = None) -> Tokenizer:
    """Make the tokenizer that a configuration names, with its context length and its cleaning of text.

    Args:
        model_cfg: The `model_cfg` of `open_clip_config.json`.
        source: What messages call the model.
        folder: A model folder, whose own tokenizer files are used where it has them.

    Raises:
        ModelError: It needs packages of the extra `mcip[siglip]`, or files that cannot be had.
    """
    text_cfg = model_cfg["text_cfg"]
    settings: dict[str, Any] = deepcopy(text_cfg.get("tokenizer_kwargs", {}))
    if "context_length" in text_cfg:
        settings["context_length"] = text_cfg["context_length"]
    name = _hugging_face_name(model_cfg)
    if name is None:
        simple: Tokenizer = open_clip.SimpleTokenizer(**settings)
        return simple
    place = str(folder) if folder is not None and (folder / _CONFIG).is_file() else name
    try:
        import transformers  # noqa: F401
        from open_clip.tokenizer import HFTokenizer

        settings["trust_remote_code"] = False  # a configuration from elsewhere must not make code from there run
        tokenizer: Tokenizer = HFTokenizer(place, tokenizer_mode=text_cfg.get("tokenizer_mode"), **settings)
    except ImportError as error:
        raise ModelError(
            f"{source} reads text with the tokenizer {name}, which needs more packages ({error}): "
            "pip install 'mcip[siglip]'. Images can be embedded without them."
        ) from error
    except Exception as error:
        raise ModelError(
            f"Could not get the tokenizer {place} of {source}: {str(error).rstrip('.')}. "
            "It is fetched from the Hugging Face hub at first use and kept: run it once with a network. "
            "Images can be embedded without it."
        ) from error
    return tokenizer


def write_tokenizer(
    model_cfg: Mapping[str, Any], folder: Path | None, tokenizer: Callable[[], Tokenizer], out: Path
) -> str | None:
    """Write the files of a tokenizer of Hugging Face to the folder `out`: open_clip reads them from there.

    Args:
        model_cfg: The `model_cfg` of `open_clip_config.json`; where it names no such tokenizer, nothing is written.
        folder: The folder the model came from; the files are copied where it has them.
        tokenizer: Gives the tokenizer.
        out: Where to write.

    Returns:
        Why nothing could be written, or None.
    """
    if _hugging_face_name(model_cfg) is None:
        return None
    if folder is not None and (folder / _CONFIG).is_file():
        for file in {file for pattern in _FILES for file in folder.glob(pattern)}:
            shutil.copy(file, out)
        return None
    try:
        tokenizer().save_pretrained(out)  # type: ignore[attr-defined]
    except ModelError as error:
        return str(error)
    return None


def _hugging_face_name(model_cfg: Mapping[str, Any]) -> str | None:
    return model_cfg["text_cfg"].get("hf_tokenizer_name") or None
