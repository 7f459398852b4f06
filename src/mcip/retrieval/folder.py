"""The files of a folder, to its depths: which are images, and which are left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias, TypeVar

from mcip.data.formats import IMAGE_SUFFIXES, missing_extra
from mcip.data.raw import RAW_SUFFIXES
from mcip.data.walk import by_suffix, counted, is_hidden

Value = TypeVar("Value")
_TABLE_SUFFIXES: Final = (".parquet", ".pq", ".tar", ".tar.gz", ".tgz", ".csv", ".tsv")
# What cameras write beside RAW.
_PAIRED_SUFFIXES: Final = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".heic", ".heif", ".hif"))

# Real paths of a folder and of those above it: (path, those above it).
_Chain: TypeAlias = "tuple[str, _Chain] | None"


@dataclass
class Files:
    """The files of a folder.

    Attributes:
        images: For each path below the folder, "/" between its parts, what is known of the file, in order.
        tables: Paths of files that may be tables of images.
        skipped: Paths that are left out, with the reason.
        closed: Paths of folders that cannot be listed and of files that cannot be read now, with the reason.
    """

    images: dict[str, os.stat_result] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)


def list_folder(root: Path) -> Files:
    """List the files of a folder, following links; hidden files and those of the system are left out.

    Folders that cannot be entered, names that are not UTF-8 and files that vanish meanwhile do not end it.
    """
    found = Files()
    left: list[tuple[str, _Chain]] = [("", (os.path.realpath(root), None))]
    while left:
        folder, above = left.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        _add(found, left, f"{folder}/{entry.name}".lstrip("/"), entry, above)
        except OSError as error:
            if folder and isinstance(error, FileNotFoundError):
                continue
            found.closed[printable(folder)] = f"cannot be listed: {error.strerror or error}"
    found.images = dict(sorted(found.images.items(), key=lambda item: item[0].split("/")))
    return found


def why_closed(name: str, size: int) -> str | None:
    """Why a file that is an image by its suffix cannot be read now; None where nothing speaks against it."""
    suffix = PurePosixPath(name).suffix.lower()
    extra = missing_extra(suffix)
    if extra is not None:
        return f"{suffix} is read with an extra that is not installed: pip install 'mcip[{extra}]'"
    if size == 0 and suffix in IMAGE_SUFFIXES:
        return "has 0 bytes: perhaps a cloud has not downloaded it"
    return None


def why_skipped(name: str) -> str:
    """Why a file that is no image by its suffix is left out."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"not an image by its suffix ({suffix or 'no suffix'})"


def without_raw_pairs(
    images: Mapping[str, Value], closed: Mapping[str, str]
) -> tuple[dict[str, Value], dict[str, str], dict[str, str]]:
    """Leave out camera RAW beside a JPEG or HEIC of the same name, which is the same photograph.

    Args:
        images: What is known of each image, by its path.
        closed: Files that cannot be read now, with the reason.

    Returns:
        Those that are left; those that are left out, with the reason; and closed together with those whose JPEG or
        HEIC is among it, which are neither indexed nor removed until that can be read.
    """
    beside = _developed(images)
    # What is read with a missing extra never takes the place of RAW.
    waited = _developed(name for name in closed if missing_extra(PurePosixPath(name).suffix) is None)
    pairs, waiting = dict[str, str](), dict(closed)
    for name in images:
        if PurePosixPath(name).suffix.lower() not in RAW_SUFFIXES:
            continue
        if other := beside.get(_stem(name)):
            pairs[name] = f"camera RAW beside {other}; --raw-pairs indexes both"
        elif other := waited.get(_stem(name)):
            waiting[name] = f"camera RAW beside {other}, which cannot be read now; --raw-pairs indexes both"
    left = {name: facts for name, facts in images.items() if name not in pairs and name not in waiting}
    return left, pairs, waiting


def _developed(names: Iterable[str]) -> dict[str, str]:
    """The JPEG and HEIC files among these, by what their names have in common with those of RAW."""
    paths = [PurePosixPath(name) for name in names]
    return {_stem(str(path)): path.name for path in paths if path.suffix.lower() in _PAIRED_SUFFIXES}


def _stem(name: str) -> str:
    """A path without its suffix; cameras write names in capitals, and programs may not."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{PurePosixPath(file).stem.lower()}"


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def summary(skipped: Mapping[str, str]) -> str:
    """How many files were skipped, by suffix, and what would read them: "12 .heic, 1 .txt"."""
    extras = {extra for name in skipped if (extra := missing_extra(PurePosixPath(name).suffix))}
    hints = "".join(f" (some are read with pip install 'mcip[{extra}]')" for extra in sorted(extras))
    return counted(by_suffix(map(Path, skipped))) + hints


def printable(name: str) -> str:
    """A name with bytes that are not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _add(found: Files, left: list[tuple[str, _Chain]], name: str, entry: os.DirEntry[str], above: _Chain) -> None:
    try:
        facts = entry.stat()
    except FileNotFoundError:
        found.skipped[printable(name)] = "a link to nothing, or a file that vanished"
        return
    except OSError as error:
        found.closed[printable(name)] = f"cannot be read: {error.strerror or error}"
        return
    if stat.S_ISDIR(facts.st_mode):
        assert above is not None
        real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[0]}/{entry.name}"
        if not (entry.is_symlink() and _contains(above, real)):
            left.append((name, (real, above)))
    elif not stat.S_ISREG(facts.st_mode):
        found.skipped[printable(name)] = "not a regular file"
    elif printable(name) != name:
        found.skipped[printable(name)] = "its name is not UTF-8: rename it"
    elif why := why_closed(name, facts.st_size):
        found.closed[name] = why
    elif is_image_name(name):
        found.images[name] = facts
    elif name.lower().endswith(_TABLE_SUFFIXES):
        found.tables.append(name)
    else:
        found.skipped[name] = why_skipped(name)


def _contains(chain: _Chain, real: str) -> bool:
    while chain is not None:
        if chain[0] == real:
            return True
        chain = chain[1]
    return False
