"""Artefacts: folders with a manifest that says what made them, whose files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import ArtefactError

MANIFEST = "manifest.json"
_RECORDED = ("mcip", "torch", "open_clip_torch", "numpy", "datasets", "pillow")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What writers say that do not pass the operating system's error on: safetensors, then NumPy.
_NO_SPACE_WORDS = ("No space left", "File too large", "quota exceeded", "requested and")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends without an error, it takes the place of `path`.

    Raises:
        ArtefactError: The disk is full. What was at `path` before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn an error in the block that comes of a full disk into an `ArtefactError` that says so, and names `path`."""
    try:
        yield
    except ArtefactError:
        raise
    except Exception as error:
        if not _is_for_lack_of_space(error):
            raise
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
        raise ArtefactError(
            f"The disk is full: could not write {path} ({free / 1e6:.0f} MB free). Nothing was lost: "
            "free some space, or choose another folder, and run the same command again."
        ) from error


def _is_for_lack_of_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if any(words in str(error) for words in _NO_SPACE_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files for `path` of processes that were killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = leftover.name.split(".")[-2]
        if process.isdecimal() and not is_running(int(process)):
            leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtefactError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"There is no file {path}.") from None
    except ValueError as error:
        raise ArtefactError(f"{path} is not valid JSON ({error}). Remove it and make it again.") from error


def read_parquet(path: str | Path) -> pa.Table:
    """Read a parquet file of an artefact.

    Raises:
        ArtefactError: The file is missing, cut off or damaged.
    """
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(
            f"{path} is missing, cut off or damaged ({error}). Remove its folder and run what makes it again."
        ) from error


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Artefact:
    """A folder with a manifest: what kind it is, what it was made from, whether it is complete, and what it holds.

    Attributes:
        folder: Where it lies.
        manifest: The content of `manifest.json`: `kind`, `made_from`, `complete`, `versions`, `files` (name to
            SHA-256), and the facts its stage recorded.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether the stage that makes it has ended."""
        return bool(self.manifest["complete"])

    @classmethod
    def begin(cls, folder: str | Path, kind: str, made_from: Mapping[str, Any]) -> Artefact:
        """Start the artefact in `folder`, or take up one that was started from the same inputs and parameters.

        One that was started from others, but holds nothing yet, is started anew.

        Raises:
            ArtefactError: The folder holds something else, or an artefact made from other inputs or parameters.
        """
        folder = Path(folder)
        wanted = json.loads(json.dumps(made_from))
        if not (folder / MANIFEST).exists():
            if _holds_anything(folder):
                raise ArtefactError(f"{folder} is not empty and is not an artefact of mcip. Choose another folder.")
            artefact = cls(folder, {"kind": kind, "complete": False, "made_from": wanted, "versions": _versions()})
            artefact._save()
            return artefact
        artefact = cls.open(folder, kind, complete=False)
        found = artefact.manifest["made_from"]
        different = [
            f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} now"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ]
        if different and not artefact.complete and not _holds_anything(folder):
            artefact.manifest |= {"made_from": wanted, "versions": _versions()}
            artefact._save()
        elif different:
            raise ArtefactError(
                f"{folder} was made with other inputs or parameters ({'; '.join(different)}). "
                "Choose another folder, remove this one, or use the same inputs and parameters."
            )
        return artefact

    @classmethod
    def open(cls, folder: str | Path, kind: str, complete: bool = True) -> Artefact:
        """Open the artefact in `folder`.

        Raises:
            ArtefactError: There is none, it is of another kind, or it is not complete although `complete` asks for it.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise ArtefactError(f"{folder} is not an artefact of mcip: it has no {MANIFEST}.")
        manifest = read_json(folder / MANIFEST)
        found = manifest.get("kind")
        if found != kind:
            raise ArtefactError(f"{folder} holds {found!r}, but {kind!r} is needed here.")
        if complete and not manifest["complete"]:
            raise ArtefactError(f"{folder} is not complete: run the command that makes it again, and it goes on.")
        return cls(folder, manifest)

    @staticmethod
    def is_one(folder: str | Path, kind: str) -> bool:
        """Whether `folder` holds an artefact of this kind."""
        path = Path(folder) / MANIFEST
        return path.is_file() and read_json(path).get("kind") == kind

    def finish(self, leave_out: Sequence[str] = (), **facts: Any) -> None:
        """Record the facts and the hash of every file, and mark the artefact complete.

        Args:
            leave_out: Names at the top of the folder that are not part of the artefact.
            facts: What the stage has to say of it.
        """
        files = {
            str(path.relative_to(self.folder)): file_hash(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and path.name != MANIFEST
            and not path.name.endswith(".part")
            and path.relative_to(self.folder).parts[0] not in leave_out
        }
        self.manifest |= {**facts, "files": files, "complete": True}
        self._save()

    def _save(self) -> None:
        write_json(self.folder / MANIFEST, self.manifest)


def _holds_anything(folder: Path) -> bool:
    """Whether there is more in `folder` than a manifest and what a killed process left half written."""
    return folder.exists() and any(
        entry.name != MANIFEST and not entry.name.endswith(".part") for entry in folder.iterdir()
    )


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _RECORDED}
