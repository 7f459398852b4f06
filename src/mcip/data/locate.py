"""What a source is - images, CSV, parquet, tars, text or a name on the hub - and which files it consists of."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import DataError
from mcip.data.images import IMAGE_SUFFIXES
from mcip.data.walk import by_suffix, counted, is_hidden, is_utf8, walk

if TYPE_CHECKING:
    from mcip.data.remote import RemoteFile

SPLITS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# Before the name of a data set of the hub, where a file or folder could have that name too.
HUB: Final = "hub:"
_SUFFIXES: Final = {
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv"),
    "text": (".txt",),
    "images": tuple(IMAGE_SUFFIXES),
}


@dataclass(frozen=True)
class Located:
    """The files of a source.

    Attributes:
        kind: images, csv, parquet, tar, text, remote (parquet by URI) or hub.
        files: In order.
        root: The folder in which paths of images start and below which folders may name splits.
        skipped: Number of files by suffix that lie beside them and are not read.
    """

    kind: str
    files: list[Path]
    root: Path
    skipped: dict[str, int] = field(default_factory=dict)
    remote: list[RemoteFile] = field(default_factory=list)


def locate(source: str | os.PathLike[str]) -> Located:
    """Find what a source is and which files it consists of.

    Raises:
        DataError: There is no such source, it cannot be read, or it holds nothing that is read.
    """
    text = os.fsdecode(source)
    if not text:
        raise DataError("the name of the data is empty: give a path, a URI, or a data set of the hub")
    if text.startswith(HUB):
        return Located("hub", [], Path(text.removeprefix(HUB)))
    if text.startswith("file://"):
        text = url2pathname(unquote(urlsplit(text).path))
    elif "://" in text:
        return _locate_remote(text)
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - leaves `~name` as it is where there is no such user
    if not is_utf8(path.absolute()):
        raise DataError(f"the path {os.fsencode(path)!r} is not UTF-8: rename the file or folder")
    if os.path.isdir(path):  # noqa: PTH112 - False for a path that no file can have
        return _locate_in_folder(path)
    if os.path.isfile(path):  # noqa: PTH113
        kind = kind_of(path)
        if kind in ("csv", "parquet", "tar", "text"):
            return Located(kind, [path], path.parent)
        raise DataError(
            f"{path}: a table is a folder of class folders, a .csv, .parquet or .tar file, not a "
            f"{path.suffix or 'suffix-less'} file"
        )
    if glob.has_magic(text):
        return _locate_glob(path)
    if not isinstance(source, str) or _looks_like_path(text):
        raise DataError(f"no file or folder {shortened(str(path))}{_nearest_sibling(path)}")
    return Located("hub", [], path)


def normal_split(name: str) -> str:
    """The table's name of a split: train, val and test for their usual synonyms, other names as they are."""
    return SPLITS.get(name.lower(), name)


def split_of(file: Path, root: Path) -> str:
    """The split that a file's folder or the first word of its name tells, else train.

    So "val/0.tar", "val.csv" and "validation-00000-of-00004.parquet" are val.
    """
    first = file.name.partition(".")[0].replace("_", "-").partition("-")[0]
    words = [word.lower() for word in (*file.relative_to(root).parts[:-1], first)]
    return next((SPLITS[word] for word in words if word in SPLITS), "train")


def kind_of(path: Path) -> str:
    """The kind of a file by its suffix; empty for one that is not read."""
    name = path.name.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), "")


def _locate_in_folder(root: Path) -> Located:
    found: dict[str, list[Path]] = {}
    for file in walk(root):
        found.setdefault(kind_of(file) if is_utf8(file) else "", []).append(file)
    kind = _kind_of_folder(found)
    skipped = by_suffix(file for other, files in found.items() if not kind or other != kind for file in files)
    if not kind:
        content = f"its {sum(skipped.values())} files are none of them images ({counted(skipped)})"
        raise DataError(
            f"{root}: no images: {content if found else 'it is empty'}. "
            "A folder must hold class folders of images, parquet files or tars"
        )
    return Located(kind, sorted(found[kind], key=lambda file: file.parts), root, skipped)


def _kind_of_folder(found: dict[str, list[Path]]) -> str:
    """What a folder is by the files in it; a few images beside the shards of a table do not make it one of images."""
    if "images" in found:
        if "parquet" in found and _embeds_images(found["parquet"]):
            return "parquet"
        # Tars beside images that were unpacked from them are about as large; a logo beside tars is small.
        if "tar" in found and 2 * _size(found["images"]) < _size(found["tar"]):
            return "tar"
    return next((kind for kind in ("images", "parquet", "tar", "csv", "text") if kind in found), "")


def _embeds_images(files: Sequence[Path]) -> bool:
    """Whether parquet files hold images themselves, rather than facts about the images beside them."""
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError):  # reported when it is read
            continue
        for column in schema:
            kind = column.type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field("bytes").type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return True
    return False


def _size(files: Sequence[Path]) -> int:
    total = 0
    for file in files:
        with suppress(OSError):  # vanished meanwhile
            total += file.stat().st_size
    return total


def _locate_glob(pattern: Path) -> Located:
    """The files of a pattern. Folders whose names hold brackets and that are there are taken as they are."""
    parts = pattern.parts
    literal = Path(parts[0])
    rest = list(parts[1:])
    if glob.has_magic(parts[0]) and not literal.exists():
        literal, rest = Path(), list(parts)
    while len(rest) > 1 and os.path.isdir(literal / rest[0]):  # noqa: PTH112
        literal = literal / rest.pop(0)
    try:
        matches = [file for file in literal.glob("/".join(rest)) if file.is_file() and not is_hidden(file.name)]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {shortened(str(pattern))}: {error}") from error
    files = sorted(filter(is_utf8, matches), key=lambda file: file.parts)
    kinds = {kind_of(file) for file in files}
    if not files:
        raise DataError(f"no file matches {shortened(str(pattern))}")
    if len(kinds) > 1 or not kinds & {"parquet", "tar", "csv", "text"}:
        raise DataError(
            f"{pattern}: the files must all be parquet or all be tars; they are {counted(by_suffix(files))}"
        )
    return Located(kinds.pop(), files, Path(os.path.commonpath([file.parent for file in files])))


def _locate_remote(uri: str) -> Located:
    from mcip.data.remote import remote_files

    files = remote_files(uri)
    shards = [file for file in files if kind_of(Path(file.name)) == "parquet" and not is_hidden(file.name)]
    skipped = by_suffix(Path(file.name) for file in files if file not in shards and not is_hidden(file.name))
    if not shards:
        raise DataError(f"{uri}: a table behind a URI is one or more parquet files; there are {counted(skipped)}")
    return Located("remote", [], Path(), skipped, shards)


def _looks_like_path(text: str) -> bool:
    owner, slash, rest = text.partition("/")
    return (
        not (owner and slash and rest)
        or "/" in rest
        or owner[0] in ".~"
        or bool(kind_of(Path(text)))
        or os.path.exists(owner)  # noqa: PTH110
    )


def _nearest_sibling(path: Path) -> str:
    if not os.path.isdir(path.parent):  # noqa: PTH112
        return f" ({shortened(str(path.parent))} does not exist either)"
    try:
        near = get_close_matches(path.name, [sibling.name for sibling in path.parent.iterdir()], n=1)
    except OSError as error:
        return f" ({path.parent} cannot be read: {error.strerror})"
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def shortened(text: str) -> str:
    """A text as a message shows it: without the middle of one that is too long to be a path."""
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-100:]} ({len(text)} characters)"
