"""One lock for each folder that is written: the second process is told who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from mcip.core.errors import ArtefactError

LOCK = ".lock"
_HOLDER = ".lock.holder"
# What a lock leaves in the folder it protects, which is not part of what the folder holds.
LOCK_FILES = (LOCK, _HOLDER)


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
    path = Path(lock.lock_file)
    path.with_name(_HOLDER).unlink(missing_ok=True)
    # Removed while it is held: whoever waits for it notices, and locks a new one. Windows keeps what is open.
    with contextlib.suppress(PermissionError):
        path.unlink(missing_ok=True)
    lock.release()


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
