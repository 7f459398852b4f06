"""How `mcip search` finds a server of the same user on this machine that serves an index already.

`mcip serve` leaves a note in the user's cache: where it listens, and a key that only this user can read. A client
trusts the note only if it is the user's own, its process is alive, and the server proves that it knows the key and
serves this very table; only then does the client send a query, with the key. It costs nothing to import.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# The header that carries the key, and the longest note that is read.
KEY_HEADER: Final = "x-mcip-key"
_LONGEST: Final = 8192


@dataclass(frozen=True)
class Note:
    """Where an index is served.

    Attributes:
        address: The server's, such as http://127.0.0.1:8000/.
        pid: Of its process.
        table: Where the table lies, see `mcip.retrieval.location.table_location`.
        key: What only this user's processes know.
    """

    address: str
    pid: int
    table: str
    key: str


def new_key() -> str:
    """A key for a server."""
    return secrets.token_hex(32)


def proof(key: str, nonce: str, table: str) -> str:
    """What shows that somebody knows the key and serves a table."""
    return hmac.new(key.encode(), f"{nonce} {table}".encode(), hashlib.sha256).hexdigest()


@contextlib.contextmanager
def announced(note: Note) -> Iterator[None]:
    """Leave a note while the block runs; where none can be left, the server is only found by its address."""
    path = _path(note.table)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.touch(0o600)
        temporary.write_text(json.dumps(asdict(note)), encoding="utf-8")
        temporary.replace(path)
    try:
        yield
    finally:
        # Another server of the same index may have left its own since.
        if _read(path) == note:
            path.unlink(missing_ok=True)


def find(table: str) -> Note | None:
    """The note of a server of this user that serves a table and is alive."""
    path = _path(table)
    note = _read(path)
    if note is None or note.table != table:
        return None
    if not _is_alive(note.pid):
        # Left by a server that was killed.
        path.unlink(missing_ok=True)
        return None
    return note


def _path(table: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mcip" / "servers" / f"{hashlib.sha256(os.fsencode(table)).hexdigest()[:24]}.json"


def _read(path: Path) -> Note | None:
    """A note that nobody but this user can have written or read."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            others = stat.S_IRWXG | stat.S_IRWXO
            if os.name != "nt" and (facts.st_uid != _user() or facts.st_mode & others):
                return None
            content = json.loads(file.read(_LONGEST))
        note = Note(**content)
    except (OSError, ValueError, TypeError):
        return None
    texts = (note.address, note.table, note.key)
    return note if all(isinstance(text, str) for text in texts) and isinstance(note.pid, int) else None


def _user() -> int:
    """The number of this process's user, on systems that have such numbers."""
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().uids().effective)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there `os.kill` ends a process; the server's proof has to suffice
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return pid > 0
