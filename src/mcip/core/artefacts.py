"""Artefacts: folders with a manifest that says what made them, locked while they are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from mcip.core.errors import ArtefactError
from mcip.core.files import explain_full_disk, read_json, write_json
from mcip.core.hashes import hash_files
from mcip.core.locks import is_lock, lock_folder, release_folder, remove_stale_lock
from mcip.core.processes import processes
from mcip.core.progress import console

MANIFEST = "manifest.json"
# Of the manifest and what lies beside it; artefacts of another format have to be made again.
FORMAT = 2
_RECORDED = ("mcip", "torch", "open_clip_torch", "numpy", "datasets", "pillow")


@dataclass
class Artefact:
    """A folder with a manifest: what kind it is, what it was made from, whether it is complete, and what it holds.

    `begin` is how every stage starts and resumes. As a context manager it keeps the folder locked for this process:

        with Artefact.begin(out, "things", {"data": table.fingerprint}) as artefact:
            if not artefact.complete:
                ...
                artefact.finish(rows=3)

    Attributes:
        folder: Where it lies.
        manifest: The content of `manifest.json`: `kind`, `made_from`, `complete`, `versions`, `files` (name to
            BLAKE2b hash), and the facts its stage recorded.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    _lock: FileLock | None = field(default=None, repr=False)

    def __enter__(self) -> Artefact:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()

    @property
    def complete(self) -> bool:
        """Whether the stage that makes it has ended."""
        return bool(self.manifest["complete"])

    @classmethod
    def begin(
        cls, folder: str | os.PathLike[str], kind: str, made_from: Mapping[str, Any], announce: bool = True
    ) -> Artefact:
        """Start the artefact in `folder`, or resume one that was started from the same inputs and parameters.

        One that was started from others, but holds nothing yet, is started anew. One that is complete needs no lock.
        Of several processes the first does this and holds the lock; the others get what it found, or its error.

        Args:
            folder: Where it lies.
            kind: What it holds, one word.
            made_from: The inputs and parameters that its content follows from, as JSON has them.
            announce: Whether to say of a complete one that there is nothing to do.

        Raises:
            ArtefactError: The folder holds something else, or an artefact made from other inputs or parameters, or
                another run is writing it.
        """
        begun: list[Artefact] = []

        def act() -> dict[str, Any]:
            begun.append(cls._begin(Path(folder), kind, made_from, announce))
            return begun[0].manifest

        manifest = processes().by_first(act)
        return begun[0] if begun else cls(Path(folder), manifest)

    @classmethod
    def _begin(cls, folder: Path, kind: str, made_from: Mapping[str, Any], announce: bool) -> Artefact:
        expected = json.loads(json.dumps(made_from, default=os.fspath))
        if (folder / MANIFEST).exists():
            artefact = cls.open(folder, kind, complete=False)
            if artefact.complete:
                artefact._check_made_from(expected)
                remove_stale_lock(folder)
                if announce:
                    console.print(f"{folder} is complete: nothing to do.", markup=False, soft_wrap=True)
                return artefact
        elif _holds_anything(folder):
            raise ArtefactError(f"{folder} is not empty and is not an artefact of mcip. Choose another folder.")
        with explain_full_disk(folder / MANIFEST):
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(folder)
        try:
            return cls._resume(folder, kind, expected, lock)
        except BaseException:
            release_folder(lock)
            raise

    @classmethod
    def _resume(cls, folder: Path, kind: str, expected: dict[str, Any], lock: FileLock) -> Artefact:
        # Another process may have begun or even finished it before this one had the lock.
        if (folder / MANIFEST).exists():
            artefact = cls.open(folder, kind, complete=False)
            artefact._lock = lock
            if artefact.complete or _holds_anything(folder):
                artefact._check_made_from(expected)
                return artefact
        manifest = {"kind": kind, "format": FORMAT, "complete": False, "made_from": expected, "versions": _versions()}
        artefact = cls(folder, manifest, lock)
        artefact._save()
        return artefact

    @classmethod
    def open(cls, folder: str | os.PathLike[str], kind: str, complete: bool = True) -> Artefact:
        """Open the artefact in `folder`; the files of a complete one are checked against their recorded hashes.

        Raises:
            ArtefactError: There is none, it is of another kind, it is damaged, or it is not complete although
                `complete` asks for it.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise ArtefactError(f"{folder} is not an artefact of mcip: it has no {MANIFEST}.")
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or not {"kind", "complete", "made_from"} <= manifest.keys():
            raise ArtefactError(f"{folder / MANIFEST} is damaged. Remove {folder} and run what makes it again.")
        if manifest.get("format") != FORMAT:
            version = manifest.get("versions", {}).get("mcip", "an unknown version")
            raise ArtefactError(
                f"{folder} was made by mcip {version}, whose artefacts this version does not read: remove it, or "
                "choose another folder, and make it again."
            )
        found = manifest["kind"]
        if found != kind:
            raise ArtefactError(f"{folder} holds {found!r}, but {kind!r} is needed here.")
        if complete and not manifest["complete"]:
            raise ArtefactError(f"{folder} is not complete: run the command that makes it again to resume it.")
        artefact = cls(folder, manifest)
        if manifest["complete"]:
            artefact._check_files()
        return artefact

    @staticmethod
    def is_one(folder: str | os.PathLike[str], kind: str) -> bool:
        """Whether `folder` holds an artefact of this kind."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            return False
        manifest = read_json(path)
        return isinstance(manifest, dict) and manifest.get("kind") == kind

    @classmethod
    def verify(cls, folder: str | os.PathLike[str], kind: str) -> None:
        """Check the files of `folder` against their recorded hashes, where it is an artefact of this kind.

        Raises:
            ArtefactError: It is damaged, or was made by a version whose artefacts this one does not read.
        """
        if cls.is_one(folder, kind):
            try:
                cls.open(folder, kind, complete=False)
            except ArtefactError as error:
                raise ArtefactError(
                    f"{error} If you changed it yourself, remove {Path(folder) / MANIFEST}: it is then used as it is."
                ) from error

    def finish(self, leave_out: Sequence[str] = (), **facts: Any) -> None:
        """Record the facts and the hash of every file, and mark the artefact complete.

        Of several processes the first does this, once all have come here and written what they had to.

        Args:
            leave_out: Names at the top of the folder that are not part of the artefact.
            facts: What the stage has to say of it; those of the first process are recorded.
        """
        team = processes()
        team.barrier()
        self.manifest = team.by_first(lambda: self._finish(leave_out, facts))

    def _finish(self, leave_out: Sequence[str], facts: Mapping[str, Any]) -> dict[str, Any]:
        paths = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and path.name != MANIFEST
            and not is_lock(path)
            and not path.name.endswith(".part")
            and path.relative_to(self.folder).parts[0] not in leave_out
        ]
        hashes = hash_files([os.fspath(path) for path in paths])
        files = {
            path.relative_to(self.folder).as_posix(): digest.hex() for path, digest in zip(paths, hashes, strict=True)
        }
        self.manifest |= {**facts, "files": files, "complete": True}
        self._save()
        self._release()
        return self.manifest

    def _check_made_from(self, expected: Mapping[str, Any]) -> None:
        found = self.manifest["made_from"]
        different = [
            f"{key}: {found.get(key)!r} there, {expected.get(key)!r} now"
            for key in sorted(found.keys() | expected.keys())
            if found.get(key) != expected.get(key)
        ]
        if different:
            raise ArtefactError(
                f"{self.folder} was made with other inputs or parameters ({'; '.join(different)}). "
                "Choose another folder, remove this one, or use the same inputs and parameters."
            )

    def _check_files(self) -> None:
        files: dict[str, str] = self.manifest.get("files", {})
        paths = [self.folder / name for name in files]
        found = hash_files([os.fspath(path) for path in paths])
        for path, expected, digest in zip(paths, files.values(), found, strict=True):
            if digest.hex() != expected:
                what = "damaged: its content is not what was written" if path.is_file() else "missing"
                raise ArtefactError(f"{path} is {what}. Remove {self.folder} and run what makes it again.")

    def _release(self) -> None:
        if self._lock is not None:
            release_folder(self._lock)
            self._lock = None

    def _save(self) -> None:
        write_json(self.folder / MANIFEST, self.manifest)


def _holds_anything(folder: Path) -> bool:
    """Whether there is more in `folder` than a manifest, a lock, and what a killed process left half written."""
    return folder.exists() and any(
        entry.name != MANIFEST and not is_lock(entry) and not entry.name.endswith(".part") for entry in folder.iterdir()
    )


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _RECORDED}
