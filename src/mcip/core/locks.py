"""Locks between processes: one for each folder that is written, and one for what is done one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mcip.core.errors import ArtefactError
from mcip.core.progress import console

LOCK = ".lock"
_HOLDER = ".lock.holder"


def is_lock(path: Path) -> bool:
    """Whether a file is that of a lock, and no part of what its folder holds."""
    return path.name == _HOLDER or (path.name.startswith(".") and path.name.endswith(".lock"))


def lock_folder(folder: Path) -> FileLock:
    """Lock a folder against other processes, and against others of this one, until `release_folder` or death.

    The lock is that of the folder itself, whatever path or link leads to it.

    Raises:
        ArtefactError: Another process holds it; the message says which.
    """
    folder = folder.resolve()
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ArtefactError(
            f"{folder} is being written by {_holder(folder)}. Wait until it has ended, or choose another folder."
        ) from None
    facts = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    (folder / _HOLDER).write_text(json.dumps(facts), encoding="utf-8")
    return lock


def release_folder(lock: FileLock) -> None:
    """Let others write the folder, and leave nothing of the lock in it."""
    Path(lock.lock_file).with_name(_HOLDER).unlink(missing_ok=True)
    _release(lock)


def remove_stale_lock(folder: Path) -> None:
    """Remove the lock of a process that died, where there is one and the folder can be written."""
    if (folder / LOCK).exists():
        with contextlib.suppress(ArtefactError, OSError):
            release_folder(lock_folder(folder))


def _holder(folder: Path) -> str:
    try:
        facts = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {facts['process']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def exclusive(path: Path, action: str) -> Iterator[None]:
    """Let one process and thread at a time run the block for `path`; the others say so and wait.

    Args:
        path: A file or folder, which need not exist. All paths that lead to it share one lock.
        action: What the block does, as in "is saving", for the message of those that wait.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"Waiting for another process that {action} {path}.", markup=False, highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        _release(lock)


def _release(lock: FileLock) -> None:
    """Release a lock and remove its file."""
    # Removed while it is held: whoever waits for it notices, and locks a new one. Windows keeps what is open.
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()
