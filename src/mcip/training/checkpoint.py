"""Training state on disk: written atomically, checked when it is read, read without unpickling.

`checkpoint.json` names the file of the latest state and that of the best weights, each with its step and its hash;
the files carry their step in their name. So the two belong together, whenever a process is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write, read_json, write_json
from mcip.core.hashes import hash_file
from mcip.core.processes import processes
from mcip.core.shards import part_like, whole

INDEX = "checkpoint.json"
Role: TypeAlias = Literal["latest", "best"]
_FIELDS = {"step", "file", "hash"}


class Checkpoints:
    """The latest state of a run and its best weights, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, which may not be there yet.

        Raises:
            ArtefactError: `checkpoint.json` is damaged.
        """
        self.folder = folder
        self._entries: dict[str, dict[str, Any]] = {}
        if (folder / INDEX).exists():
            entries = read_json(folder / INDEX)
            if not isinstance(entries, dict) or not all(
                isinstance(entry, dict) and entry.keys() >= _FIELDS for entry in entries.values()
            ):
                raise _damaged(folder / INDEX, "it does not name the files")
            self._entries = entries

    def __contains__(self, role: Role) -> bool:
        return role in self._entries

    def step(self, role: Role) -> int | None:
        """The step of a file, or None where there is none."""
        return int(self._entries[role]["step"]) if role in self._entries else None

    def write(self, role: Role, step: int, state: Mapping[str, Any]) -> None:
        """Write a file beside that of the same role; it takes its place with the next `commit`.

        Of several processes the first does this, with whole tensors; all of them call it.

        Args:
            role: "latest" or "best".
            step: The step after which the state was.
            state: Tensors, numbers, strings, and dicts and lists of them.
        """
        team = processes()
        state = whole(state, keep=team.first)
        self._entries[role] = team.by_first(lambda: self._write(role, step, state))

    def _write(self, role: Role, step: int, state: Mapping[str, Any]) -> dict[str, Any]:
        path = self.folder / f"{role}-{step:09d}.pt"
        # Through a Python file a full disk is reported as such; torch's own writer hides the reason.
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save({**state, "step": step}, file)
        return {"step": step, "file": path.name, "hash": hash_file(path).hex()}

    def commit(self) -> None:
        """Make what was written the state to resume from, and remove what it replaces."""
        processes().by_first(self._commit)

    def _commit(self) -> None:
        write_json(self.folder / INDEX, self._entries)
        kept = {INDEX, *(entry["file"] for entry in self._entries.values())}
        for path in self.folder.glob("*-*.pt"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def load(self, role: Role) -> dict[str, Any]:
        """Read a file.

        Raises:
            ArtefactError: It is missing or damaged, or is of another step than recorded.
        """
        entry = self._entries[role]
        path = self.folder / Path(entry["file"]).name
        if not path.is_file():
            raise _damaged(path, "it is missing")
        if hash_file(path).hex() != entry["hash"]:
            raise _damaged(path, "its content is not what was written")
        # Of several processes on a machine each copies its part out of one file in memory.
        several = processes().several
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=several)
        if state["step"] != entry["step"]:
            raise _damaged(path, f"it is of step {state['step']}, not of step {entry['step']}")
        return state


def copy_into(tensors: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor], source: Path) -> None:
    """Copy `saved` into `tensors`, in place.

    Raises:
        ArtefactError: Names or shapes differ.
    """
    if tensors.keys() != saved.keys():
        odd = sorted(tensors.keys() ^ saved.keys())
        raise ArtefactError(f"{source} does not fit the model: {len(odd)} tensors differ, {odd[0]!r} among them.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape != saved[name].shape:
                raise ArtefactError(
                    f"{source} does not fit the model: {name} is {tuple(saved[name].shape)} there, "
                    f"{tuple(tensor.shape)} here."
                )
            tensor.copy_(part_like(saved[name], tensor))


def _damaged(path: Path, reason: str) -> ArtefactError:
    return ArtefactError(
        f"The checkpoint {path} is damaged: {reason}. Remove the folder {path.parent} to train from the start again."
    )
