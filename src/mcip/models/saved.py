"""Models on disk: a folder that open_clip loads, or a plain state dict."""

from __future__ import annotations

import contextlib
import glob
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from mcip.core.artefacts import MANIFEST, Artefact
from mcip.core.errors import ModelError
from mcip.core.files import atomic_write, read_json, write_json
from mcip.core.locks import exclusive
from mcip.models.carried import ADAPTER_FILE, ADAPTER_KEY, carried, write_adapter
from mcip.models.loading import from_config, load
from mcip.models.model import Model
from mcip.models.registry import CONFIG_FILE, KIND, WEIGHTS_FILE
from mcip.models.state_dict import SkipInit, plain_state_dict
from mcip.models.tokenizers import write_tokenizer

# What is written when the replaced folder is in the way of the new one, and what is left of a killed process.
_PART: Final = ".part"


@dataclass(frozen=True)
class SavedModel:
    """A model folder that a command wrote. It stands for its path wherever a path is taken.

    Attributes:
        folder: The folder, which open_clip loads as "local-dir:FOLDER".
        facts: What the command measured on the way: steps, validation scores, unreadable images.

    Example:
        >>> import mcip, tempfile
        >>> saved = mcip.export("toyshop", tempfile.mkdtemp(), format="open_clip")
        >>> saved.load().embed_dim
        256
    """

    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __fspath__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def __str__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def __truediv__(self, name: str) -> Path:
        """The path of a file in the folder."""
        return self.folder / name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` says: `made_from`, `source`, `fingerprint`, `versions`, and the hash of every file.

        Raises:
            ArtefactError: It is missing or damaged.
        """
        return Artefact.open(self.folder, KIND).manifest

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the weights, as `Model.fingerprint`."""
        return str(self.manifest["fingerprint"])

    def load(self, device: str = "cpu") -> Model:
        """Load the model."""
        return load(self.folder, device=device)


@dataclass(frozen=True)
class SavedWeights:
    """A plain state dict that `mcip export` wrote. It stands for its path wherever a path is taken.

    Attributes:
        file: The file of the state dict; the configuration of its model is beside it as `<file>.json`.
    """

    file: Path

    def __fspath__(self) -> str:
        """The path of the file."""
        return str(self.file)

    def __str__(self) -> str:
        """The path of the file."""
        return str(self.file)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `<file>.json` says: `model_cfg`, `preprocess_cfg`, and the `source` of the model.

        Raises:
            ArtefactError: It is missing or damaged.
        """
        return dict(read_json(_config_of(self.file)))

    def load(self, device: str = "cpu") -> Model:
        """Load the model that the configuration describes, with these weights."""
        with SkipInit():
            model = from_config(self.config, source=str(self.config["source"]))
        return load(model, weights=self.file, device=device)


def save(model: Model, folder: str | Path, made_by: dict[str, Any] | None = None) -> Path:
    """Write a folder that `open_clip.create_model_and_transforms("local-dir:<folder>")` loads, atomically.

    It holds `open_clip_config.json`, `open_clip_model.safetensors`, the tokenizer's files where the model uses one of
    Hugging Face, and a manifest; and `adapter.safetensors` where the model carries a matrix that could not be folded
    into its weights: `mcip.load` applies it, open_clip does not. A folder that `save` wrote before is replaced. Of two
    processes that save to the same folder, the second waits for the first, and replaces what it wrote.

    Args:
        model: What to write.
        folder: Where to.
        made_by: What made it, recorded in the manifest.

    Raises:
        ModelError: `folder` is there and holds something that `save` did not write.
        ArtefactError: The disk is full.

    Example:
        >>> import mcip, tempfile
        >>> folder = mcip.save(mcip.load("toyshop"), tempfile.mkdtemp())
        >>> mcip.load(folder).embed_dim
        256
    """
    with replaced_folder(folder, KIND, "a model that mcip saved") as new:
        _write(model, new, folder, made_by or {})
    return Path(folder)


@contextlib.contextmanager
def replaced_folder(folder: str | Path, kind: str, what: str) -> Iterator[Path]:
    """A new folder to write an artefact to, which takes the place of `folder` where nothing is raised.

    Args:
        folder: May be missing, empty, or an artefact of this kind.
        kind: Of the artefact.
        what: What messages call it.

    Raises:
        ModelError: `folder` holds something else.
    """
    target = Path(folder).resolve()
    with exclusive(target, "is saving"):
        _restore(target)
        if target.exists() and not _may_be_replaced(target, kind):
            raise ModelError(f"{folder} is there and does not hold {what}. Choose another folder.")
        # The name is unique and the lock is held: no other process writes here or removes it.
        new = target.with_name(f".{target.name}.new.{uuid.uuid4().hex}{_PART}")
        try:
            yield new
            _replace(target, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def write_state_dict(model: Model, file: str | Path) -> Path:
    """Write the plain state dict of a model atomically, and its configuration beside it as `<file>.json`."""
    file = Path(file)
    if file.is_dir():
        raise ModelError(f"{file} is a folder; format pth writes a file: name it, as in {file / 'model.pth'}.")
    with exclusive(file, "is writing"):
        with atomic_write(file) as path, path.open("wb") as stream:
            torch.save(plain_state_dict(model.clip), stream)
        config = {"model_cfg": model.model_cfg, "preprocess_cfg": model.preprocess_cfg, "source": model.source}
        write_json(_config_of(file), config)
    return file


def _config_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _write(model: Model, new: Path, folder: str | Path, made_by: dict[str, Any]) -> None:
    artefact = Artefact.begin(new, KIND, made_by)
    if missing := write_tokenizer(model.model_cfg, model.folder, lambda: model.tokenizer, new):
        warnings.warn(f"{folder} is saved without the files of its tokenizer: {missing}", stacklevel=3)
    with atomic_write(new / WEIGHTS_FILE) as path:
        save_file(plain_state_dict(model.clip), path, metadata={"format": "pt"})
    config = {"model_cfg": model.model_cfg, "preprocess_cfg": model.preprocess_cfg}
    if (matrix := carried(model.clip)) is not None:
        write_adapter(new / ADAPTER_FILE, matrix)
        config[ADAPTER_KEY] = {"file": ADAPTER_FILE}
    write_json(new / CONFIG_FILE, config)
    artefact.finish(source=model.source, fingerprint=model.fingerprint)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old{_PART}")


def _replace(target: Path, new: Path) -> None:
    """Put `new` in the place of `target`. What a process that is killed in between moved away, `_restore` puts back."""
    if target.exists():
        target.rename(_old(target))
    new.rename(target)
    shutil.rmtree(_old(target), ignore_errors=True)


def _restore(target: Path) -> None:
    """Put back what a process that was killed while replacing moved away, and remove what it left behind."""
    old = _old(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for left in (old, *target.parent.glob(f".{glob.escape(target.name)}.new.*{_PART}")):
        shutil.rmtree(left, ignore_errors=True)


def _may_be_replaced(folder: Path, kind: str) -> bool:
    if not folder.is_dir():
        return False
    return Artefact.is_one(folder, kind) if (folder / MANIFEST).exists() else not any(folder.iterdir())
