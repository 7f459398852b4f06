"""One process at a time where two would damage each other's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mcip.core.progress import console


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
        # Unlinked while it is held: whoever waits for the old file notices that it has no name any more.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
