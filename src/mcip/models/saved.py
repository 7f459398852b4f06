"""A saved model: a folder that open_clip loads, with what its stage measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip.core.artefacts import MANIFEST, read_json

if TYPE_CHECKING:
    from mcip.models.model import Model


@dataclass(frozen=True)
class SavedModel(os.PathLike[str]):
    """A folder that a stage saved a model in; it can stand wherever its path can.

    Attributes:
        folder: What open_clip and every command load.
        facts: What the stage measured: steps, validation scores, unreadable images.
    """

    folder: Path
    facts: dict[str, Any]

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def __str__(self) -> str:
        return os.fspath(self.folder)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the folder's manifest says."""
        content: dict[str, Any] = read_json(self.folder / MANIFEST)
        return content

    def load(self, device: str = "cpu") -> Model:
        """The model, loaded."""
        from mcip.models.model import load

        return load(self.folder, device=device)
