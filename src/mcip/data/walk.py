"""The files under a folder: hidden ones left out, links followed, however deep the folders are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mcip.core.errors import DataError

# What systems and programs leave in folders; the files in them are not the user's.
_JUNK: Final = frozenset(
    {"__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found", "thumbs.db", "desktop.ini"}
)
NOT_UTF8: Final = "with a name that is not UTF-8"

# A folder's device and inode, and the same of the folders above it.
_Ancestors = tuple[tuple[int, int], "_Ancestors"] | None


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are left out: hidden ones, macOS's `._*`, `.Trash` and `__MACOSX`."""
    return name.startswith(".") or name.lower() in _JUNK


def walk(root: Path) -> Iterator[Path]:
    """Yield the files under a folder, in no order, following links that do not lead back to a folder above.

    Raises:
        DataError: A folder cannot be read. One that vanishes meanwhile is left out.
    """
    pending: list[tuple[str, _Ancestors]] = [(str(root), None)]
    while pending:
        folder, above = pending.pop()
        try:
            facts = os.stat(folder)  # noqa: PTH116
            identity = (facts.st_dev, facts.st_ino)
            if _is_among(identity, above):
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        pending.append((entry.path, (identity, above)))
                    elif entry.is_file():
                        yield Path(entry.path)
        except FileNotFoundError:
            if above is None:
                raise DataError(f"no folder {folder}") from None
        except OSError as error:
            raise DataError(
                f"cannot read the folder {folder}: {error.strerror}. Allow reading it, or move it elsewhere"
            ) from error


def is_utf8(path: Path) -> bool:
    """Whether a path can be written in a table."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def suffix_of(path: Path) -> str:
    """What a file is counted under: its suffix in lower case."""
    if not is_utf8(path):
        return NOT_UTF8
    return path.suffix.lower() or "without suffix"


def by_suffix(files: Iterable[Path]) -> dict[str, int]:
    """The number of files of each suffix, in descending order."""
    counts = Counter(map(suffix_of, files))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def counted(numbers: dict[str, int]) -> str:
    """Counts by suffix as a message shows them: "8 .heic, 3 .cr2"."""
    return ", ".join(f"{number:,} {suffix}" for suffix, number in numbers.items())


def _is_among(identity: tuple[int, int], ancestors: _Ancestors) -> bool:
    while ancestors is not None:
        known, ancestors = ancestors
        if known == identity:
            return True
    return False
