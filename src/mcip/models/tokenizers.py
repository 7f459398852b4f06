"""Tokenizers: open_clip's own BPE at once, those of Hugging Face only where text is needed."""

from __future__ import annotations

import gzip
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import open_clip
from open_clip.tokenizer import default_bpe
from torch import Tensor

from mcip.core.errors import ModelError
from mcip.models.config_check import MERGES, file_inside
from mcip.models.hub import fetch_files

Tokenizer = Callable[[list[str]], Tensor]
# There is one of these in every folder with a tokenizer of Hugging Face.
_CONFIG: Final = "tokenizer_config.json"
# In bytes, of a file of BPE merges; open_clip's own unpacks to 3 MB.
_MAX_MERGES: Final = 64_000_000
_VOCABULARIES: Final = ("tokenizer.json", "vocab.*", "*.model")
_FILES: Final = ("*token*.json", "merges.txt", *_VOCABULARIES)


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
    if MERGES in settings:
        settings[MERGES] = str(_merges(settings[MERGES], folder, source))
    if name is None:
        simple: Tokenizer = open_clip.SimpleTokenizer(**settings)
        return simple
    try:
        import transformers  # noqa: F401
        from open_clip.tokenizer import HFTokenizer

        in_folder = folder is not None and (folder / _CONFIG).is_file()
        # Where its own configuration does not, that of its model says which class a tokenizer is of.
        place = folder if in_folder else fetch_files(name, _CONFIG, (*_FILES, "config.json"), _has_vocabulary)
        settings["trust_remote_code"] = False  # a configuration from elsewhere must not make code from there run
        mode = text_cfg.get("tokenizer_mode")
        return _OneAtATime(HFTokenizer(str(place), tokenizer_mode=mode, **settings))
    except ImportError as error:
        raise ModelError(
            f"{source} reads text with the tokenizer {name}, which needs more packages ({error}): "
            "pip install 'mcip[siglip]'. Images can be embedded without them."
        ) from error
    except Exception as error:
        raise ModelError(
            f"Could not get the tokenizer {name} of {source}: {str(error).rstrip('.')}. "
            "Images can be embedded without it."
        ) from error


class _OneAtATime:
    """A tokenizer of Hugging Face for several threads: the fast ones change their own settings at every call."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def __call__(self, texts: list[str]) -> Tensor:
        with self._lock:
            tokens: Tensor = self._tokenizer(texts)
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        return {"_tokenizer": self._tokenizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{key.removeprefix("_"): value for key, value in state.items()})  # type: ignore[misc]

    def save_pretrained(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)


def merges_file(model_cfg: Mapping[str, Any], folder: Path | None, source: str) -> Path:
    """The file of BPE merges that a model with CLIP's own tokenizer reads.

    Args:
        model_cfg: The `model_cfg` of `open_clip_config.json`.
        folder: The folder the model came from.
        source: What messages call the model.

    Raises:
        ModelError: It lies outside of the folder, or is damaged.
    """
    named = model_cfg["text_cfg"].get("tokenizer_kwargs", {}).get(MERGES)
    return Path(default_bpe()) if named is None else _merges(named, folder, source)


def _has_vocabulary(folder: Path) -> bool:
    return any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern))


def _merges(value: Any, folder: Path | None, source: str) -> Path:
    """The file of BPE merges that a configuration names, which is looked at before open_clip unpacks it."""
    path = file_inside(str(value), folder, f"bpe_path of {source}")
    try:
        with gzip.open(path) as file:
            size = len(file.read(_MAX_MERGES + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{path} is not a file of BPE merges: {error}") from error
    if size > _MAX_MERGES:
        raise ModelError(f"{path} was refused: it unpacks to more than {_MAX_MERGES:,} bytes.")
    return path


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
    merges = model_cfg["text_cfg"].get("tokenizer_kwargs", {}).get(MERGES)
    if merges is not None:
        target = out / str(merges)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_merges(merges, folder, "the model"), target)
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
