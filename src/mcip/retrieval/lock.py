"""One writer at a time for an index, known to the others by its process, its host and when it began."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from filelock import FileLock, Timeout

from mcip.core.errors import ArtefactError
from mcip.core.files import is_running, read_json, write_json
from mcip.core.optional import module
from mcip.core.progress import console
from mcip.retrieval.location import is_remote

# A writer on object storage that has not renewed its lock for this many seconds counts as dead.
EXPIRY: Final = 600.0
_RENEWALS: Final = 10
_POLL: Final = 1.0
_LOCK: Final = "_mcip_lock"
_KEY: Final = "mcip.holder"
_EMPTY: Final = pa.schema([("nothing", pa.int8())]).empty_table()


@dataclass(frozen=True)
class Holder:
    """Who writes to an index.

    Attributes:
        process: Its process id.
        host: The name of its machine.
        machine: A number of its machine, as several may have the same name.
        since: When it took the lock, in seconds of Unix time.
        expires: When the lock lapses unless it is renewed; 0 for locks of the operating system, which end with the
            process.
        token: Random, so that two holders are never taken for each other.
    """

    process: int
    host: str
    machine: int
    since: float
    expires: float
    token: str

    @classmethod
    def new(cls, expiry: float = 0) -> Holder:
        """This process, now."""
        now = time.time()
        return cls(
            os.getpid(), socket.gethostname(), uuid.getnode(), now, now + expiry if expiry else 0, uuid.uuid4().hex
        )

    def __str__(self) -> str:
        since = datetime.datetime.fromtimestamp(self.since).astimezone().isoformat(" ", "seconds")
        return f"process {self.process} on {self.host} since {since}"

    @property
    def dead(self) -> bool:
        """Whether a lock that lapses has lapsed, or its process has ended on this machine."""
        if self.expires < time.time():
            return True
        here = (self.host, self.machine) == (socket.gethostname(), uuid.getnode())
        return here and not is_running(self.process)


@contextlib.contextmanager
def write_lock(uri: str) -> Iterator[Callable[[], None]]:
    """Keep other writers of an index out while the block runs; wait for one that is at work, and say who it is.

    Args:
        uri: Of the table, resolved: the lock is the table's, however its place was spelled.

    Yields:
        A function that raises ArtefactError if the lock was lost, to be called before each change of the table.

    Raises:
        ArtefactError: The place of the table cannot be written to.
    """
    with _object_lock(uri) if is_remote(uri) else _file_lock(uri) as check:
        yield check


@contextlib.contextmanager
def _file_lock(uri: str) -> Iterator[Callable[[], None]]:
    # Beside the table, where every process that can write to it looks.
    folder = Path(f"{uri}.search")
    noted = folder / "writer.json"
    lock = FileLock(folder / "writer.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        _tell(uri, _noted_holder(noted))
        lock.acquire()
    except OSError as error:
        raise ArtefactError(
            f"The index {uri} cannot be written to: {folder}: {error.strerror or error}. It can still be searched. "
            "Choose another --db, or make its folder writable."
        ) from error
    try:
        write_json(noted, asdict(Holder.new()))
        yield lambda: None
    finally:
        noted.unlink(missing_ok=True)
        lock.release()


def _noted_holder(path: Path) -> Holder | None:
    try:
        return Holder(**read_json(path))
    except (ArtefactError, TypeError, OSError):
        return None


@contextlib.contextmanager
def _object_lock(uri: str) -> Iterator[Callable[[], None]]:
    """A lock in the configuration of a small Lance table: of two processes that set it at once, Lance lets one win."""
    place = f"{uri}/{_LOCK}"
    current, announced = _acquired(place), False
    while not isinstance(current, _Held):
        if not announced:
            _tell(uri, current)
            announced = True
        time.sleep(_POLL)
        current = _acquired(place)
    held = current
    renewing = threading.Thread(target=held.renew_until_released, daemon=True)
    renewing.start()
    try:
        yield held.check
    finally:
        held.released.set()
        renewing.join()
        held.release()


class _Held:
    """A lock on object storage that this process holds."""

    def __init__(self, place: str, holder: Holder) -> None:
        self.place = place
        self.holder = holder
        self.released = threading.Event()
        self.lost: str | None = None

    def check(self) -> None:
        """Raise ArtefactError if another process has taken the lock over."""
        if self.lost is None and self.holder.expires < time.time():
            self.lost = "it could not be renewed in time"
        if self.lost is not None:
            raise ArtefactError(
                f"The lock {self.place} was lost ({self.lost}), so another process may be writing to this index. "
                "Run the same command again: it resumes."
            )

    def renew_until_released(self) -> None:
        """Put off the expiry again and again."""
        while not self.released.wait(EXPIRY / _RENEWALS):
            with contextlib.suppress(OSError, ValueError):
                self._renew()

    def _renew(self) -> None:
        table = module("lance").dataset(self.place)
        found = _holder(table)
        if found is None or found.token != self.holder.token:
            self.lost = f"it is held by {found}" if found else "it was released"
            self.released.set()
            return
        renewed = Holder(**{**asdict(self.holder), "expires": time.time() + EXPIRY})
        table.update_config({_KEY: json.dumps(asdict(renewed))})
        self.holder = renewed

    def release(self) -> None:
        """Give the lock back, unless it was lost."""
        with contextlib.suppress(OSError, ValueError):
            table = module("lance").dataset(self.place)
            found = _holder(table)
            if found is not None and found.token == self.holder.token:
                table.update_config({_KEY: ""})
                table = module("lance").dataset(self.place)
                table.cleanup_old_versions(retain_versions=1, delete_unverified=False)


def _acquired(place: str) -> _Held | Holder | None:
    """The lock, or who holds it; None where another process was quicker by a moment."""
    lance = module("lance")
    try:
        table = lance.dataset(place)
    except (ValueError, OSError):
        # Another process may create it at this moment.
        with contextlib.suppress(OSError):
            lance.write_dataset(_EMPTY, place, mode="create")
        table = lance.dataset(place)
    found = _holder(table)
    if found is not None and not found.dead:
        return found
    holder = Holder.new(EXPIRY)
    try:
        table.update_config({_KEY: json.dumps(asdict(holder))})
    except OSError:
        return _holder(lance.dataset(place))
    return _Held(place, holder)


def _holder(table: Any) -> Holder | None:
    text = table.config().get(_KEY)
    return Holder(**json.loads(text)) if text else None


def _tell(uri: str, holder: Holder | None) -> None:
    by = str(holder) if holder else "another process"
    console.print(f"{uri} is being written to by {by}: waiting for it to end.", markup=False, soft_wrap=True)
