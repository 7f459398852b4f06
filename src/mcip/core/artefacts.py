"""Artefacts: folders with a manifest that says what made them, whose files appear atomically."""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib.metadata
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from mcip.core.errors import ArtefactError
from mcip.core.hashes import hash_files
from mcip.core.locks import is_lock, lock_folder, release_folder, remove_stale_lock
from mcip.core.progress import console

MANIFEST = "manifest.json"
# Of the manifest and what lies beside it; artefacts of another format have to be made again.
FORMAT = 2
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
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
        process = leftover.name.split(".")[-2].partition("-")[0]
        if process.isdecimal() and not is_running(int(process)):
            leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this machine exists; Windows is not asked, where signal 0 would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
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

        Args:
            folder: Where it lies.
            kind: What it holds, one word.
            made_from: The inputs and parameters that its content follows from, as JSON has them.
            announce: Whether to say of a complete one that there is nothing to do.

        Raises:
            ArtefactError: The folder holds something else, or an artefact made from other inputs or parameters, or
                another process is writing it.
        """
        folder = Path(folder)
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

    def finish(self, leave_out: Sequence[str] = (), **facts: Any) -> None:
        """Record the facts and the hash of every file, and mark the artefact complete.

        Args:
            leave_out: Names at the top of the folder that are not part of the artefact.
            facts: What the stage has to say of it.
        """
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
