"""Where sources and tables lie, spelled in one way: links, `..`, `~`, globs and `file://` resolve to the same place."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from mcip.core.errors import DataError
from mcip.data.walk import is_utf8


def is_remote(location: str) -> bool:
    """Whether a location is a URI of object storage."""
    return "://" in location and not location.lower().startswith("file://")


def local_path(location: str) -> Path:
    """The path of a location on this machine, with `~` expanded and `file://` removed.

    Raises:
        DataError: It is no path, or a `file://` URI of another machine.
    """
    if "\0" in location:
        raise DataError(f"{location!r} is no path: it holds a NUL character")
    if not location.lower().startswith("file://"):
        return Path(os.path.expanduser(location))  # noqa: PTH111 - leaves `./~` and an unknown `~name` as they are
    parts = urlsplit(location)
    if parts.netloc not in ("", "localhost"):
        raise DataError(f"{location} names the machine {parts.netloc!r}: write file:/// and a path of this machine")
    # What looks like a query or a fragment belongs to the path of a file.
    path = location[len("file://") + len(parts.netloc) :]
    return Path(url2pathname(unquote(path)) if os.name == "nt" else unquote(path))


def resolve(location: str | os.PathLike[str]) -> str:
    """The one spelling of a location: an absolute path without links, a URI without a slash at its end.

    The part of a glob before its first pattern is resolved; a name of the hub stays as it is.
    """
    text = os.fspath(location)
    if is_remote(text):
        scheme, _, rest = text.partition("://")
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    path = local_path(text)
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return text if _is_hub_name(text, path) else os.path.realpath(path)
    literal, patterns = path, list[str]()
    while not os.path.lexists(literal) and literal != literal.parent:
        patterns.insert(0, literal.name)
        literal = literal.parent
    return str(Path(os.path.realpath(literal), *patterns))


def table_location(location: str | os.PathLike[str]) -> str:
    """The one spelling of where an index's table is, or shall be.

    Raises:
        DataError: It cannot be written down, see `check_utf8`.
    """
    text = os.fspath(location)
    found = resolve(text) if is_remote(text) else os.path.realpath(local_path(text))
    check_utf8(found)
    return found


def check_utf8(location: str) -> None:
    """Refuse a path that cannot be written in a table.

    Raises:
        DataError: Its name is not UTF-8.
    """
    if not is_utf8(Path(location)):
        raise DataError(f"The path {os.fsencode(location)!r} is not UTF-8: rename the file or folder.")


def _is_hub_name(text: str, path: Path) -> bool:
    """Whether a text is what `locate` looks up on the hub: "owner/name", where there is no such folder."""
    owner, slash, rest = text.partition("/")
    is_relative = not path.is_absolute() and not text.startswith((".", "~", "file://"))
    return is_relative and bool(slash and owner and rest) and "/" not in rest and not os.path.lexists(owner)
