"""Training state on disk: written whole, read without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mcip.core.artefacts import atomic_write
from mcip.core.errors import ArtefactError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and dicts and lists of them), whole or not at all."""
    # Through a Python file a full disk is reported as such; torch's own writer hides the reason.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        ArtefactError: The file is cut off or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArtefactError(
            f"The checkpoint {path} is cut off or damaged ({error}). Remove it to train from the start again."
        ) from error
    return state


def copy_into(tensors: dict[str, torch.Tensor], saved: dict[str, torch.Tensor], where: Path) -> None:
    """Copy `saved` into `tensors`, in place.

    Raises:
        ArtefactError: Names or shapes differ.
    """
    if tensors.keys() != saved.keys():
        odd = sorted(tensors.keys() ^ saved.keys())
        raise ArtefactError(f"{where} does not fit the model: {len(odd)} tensors differ, {odd[0]!r} among them.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape != saved[name].shape:
                raise ArtefactError(
                    f"{where} does not fit the model: {name} is {tuple(saved[name].shape)} there, "
                    f"{tuple(tensor.shape)} here."
                )
            tensor.copy_(saved[name])
