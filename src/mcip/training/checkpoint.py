"""Training state on disk: written atomically, checked when it is read, read without unpickling.

`checkpoint.json` names the file of the latest state and that of the best weights, each with its step and its hash;
the files carry their step in their name. So the two belong together, whenever a process is killed. Of tensors that
several processes share each writes its own rows into a file beside it: none holds a whole tower.
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
from mcip.core.shards import SavedRows, part_like, put_together, separate

INDEX = "checkpoint.json"
Role: TypeAlias = Literal["latest", "best"]
_FIELDS = {"file", "hash"}


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
            if not isinstance(entries, dict) or not all(map(_names_files, entries.values())):
                raise _damaged(folder / INDEX, "it does not name the files")
            self._entries = entries

    def __contains__(self, role: Role) -> bool:
        return role in self._entries

    def step(self, role: Role) -> int | None:
        """The step of a file, or None where there is none."""
        return int(self._entries[role]["step"]) if role in self._entries else None

    def write(self, role: Role, step: int, state: Mapping[str, Any]) -> None:
        """Write a file beside that of the same role; it takes its place with the next `commit`.

        All processes call it. The first one writes what they have alike, each the rows of what they share.

        Args:
            role: "latest" or "best".
            step: The step after which the state was.
            state: Tensors, numbers, strings, and dicts and lists of them.
        """
        team, parts = processes(), list[torch.Tensor]()
        common = {**separate(state, parts), "step": step}
        entry: dict[str, Any] = {"step": step, **team.by_first(lambda: self._write(f"{role}-{step:09d}.pt", common))}
        if parts:
            written = self._write(f"{role}-{step:09d}-{team.rank}.pt", {"step": step, "parts": parts})
            entry["parts"] = team.gather_json(written)
        self._entries[role] = entry

    def _write(self, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
        # Through a Python file a full disk is reported as such; torch's own writer hides the reason.
        with atomic_write(self.folder / name) as temporary, temporary.open("wb") as file:
            torch.save(dict(content), file)
        return {"file": name, "hash": hash_file(self.folder / name).hex()}

    def commit(self) -> None:
        """Make what was written the state to resume from, and remove what it replaces."""
        processes().by_first(self._commit)

    def _commit(self) -> None:
        write_json(self.folder / INDEX, self._entries)
        kept = {file["file"] for entry in self._entries.values() for file in _files(entry)}
        for path in self.folder.glob("*-*.pt"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def load(self, role: Role) -> dict[str, Any]:
        """Read a file.

        Raises:
            ArtefactError: It is missing or damaged, or is of another step than recorded.
        """
        entry = self._entries[role]
        processes().by_first(lambda: self._check(entry))
        state, *parts = (self._read(file, entry["step"]) for file in _files(entry))
        found: dict[str, Any] = put_together(state, [part["parts"] for part in parts])
        return found

    def _check(self, entry: Mapping[str, Any]) -> None:
        for file in _files(entry):
            path = self.folder / Path(file["file"]).name
            if not path.is_file():
                raise _damaged(path, "it is missing")
            if hash_file(path).hex() != file["hash"]:
                raise _damaged(path, "its content is not what was written")

    def _read(self, file: Mapping[str, Any], step: int) -> dict[str, Any]:
        path = self.folder / Path(file["file"]).name
        # Each process reads no more than its own rows, and processes of a machine share what they read.
        several = processes().several
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=several)
        if state["step"] != step:
            raise _damaged(path, f"it is of step {state['step']}, not of step {step}")
        return state


def _names_files(entry: Any) -> bool:
    if not isinstance(entry, dict) or "step" not in entry or not isinstance(entry.get("parts", []), list):
        return False
    return all(isinstance(file, dict) and file.keys() >= _FIELDS for file in _files(entry))


def _files(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All files of an entry, that of what is common to all processes first."""
    return [entry, *entry.get("parts", ())]


def copy_into(tensors: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor | SavedRows], source: Path) -> None:
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
