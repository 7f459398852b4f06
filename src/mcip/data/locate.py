"""What a source is - images, CSV, parquet, tars, text or a name on the hub - and which files it consists of."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from mcip.core.errors import DataError
from mcip.data.images import IMAGE_SUFFIXES

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
_SUFFIXES: Final = {
    "tar": (".tar", ".tar.gz", ".tgz"),
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv"),
    "text": (".txt",),
    "images": tuple(IMAGE_SUFFIXES),
}


def locate(source: str | Path) -> tuple[str, list[Path], Path]:
    """Find what a source is: its kind (images, csv, parquet, tar, text or hub), its files in order, and its root."""
    text = str(source)
    path = Path(text).expanduser()
    if path.is_dir():
        return _locate_in_folder(path)
    if path.is_file():
        kind = _kind(path)
        if kind in ("csv", "parquet", "tar", "text"):
            return kind, [path], path.parent
        raise DataError(
            f"{path}: a table is a folder of class folders, a .csv, .parquet or .tar file, not a "
            f"{path.suffix or 'suffix-less'} file"
        )
    if glob.has_magic(text):
        return _locate_glob(text)
    if isinstance(source, Path) or _looks_like_path(text):
        raise DataError(f"no file or folder {path}{_nearest_sibling(path)}")
    return "hub", [], path


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


def _kind(path: Path) -> str:
    name = path.name.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), "")


def _locate_in_folder(root: Path) -> tuple[str, list[Path], Path]:
    found: dict[str, list[Path]] = {}
    for file in _walk(root, ()):
        found.setdefault(_kind(file), []).append(file)
    for kind in ("images", "parquet", "tar", "csv", "text"):
        if kind in found:
            return kind, sorted(found[kind], key=lambda file: file.parts), root
    files = sum(map(len, found.values()))
    content = f"its {files} files are none of them images ({_suffixes(found[''])})" if files else "it is empty"
    raise DataError(f"{root}: no images: {content}. A folder must hold class folders of images, parquet files or tars")


def _walk(folder: Path, ancestors: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files under a folder, following links; hidden files (and macOS's `._*`) are left out."""
    real = os.path.realpath(folder)
    if real in ancestors:  # a link back to a folder above
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    yield from _walk(folder / entry.name, (*ancestors, real))
                elif entry.is_file():
                    yield folder / entry.name
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def _locate_glob(pattern: str) -> tuple[str, list[Path], Path]:
    anchor, rest = (Path(Path(pattern).expanduser().anchor), Path(pattern).expanduser())
    found = anchor.glob(str(rest.relative_to(anchor)))
    files = sorted((file for file in found if file.is_file() and not file.name.startswith(".")), key=lambda f: f.parts)
    kinds = {_kind(file) for file in files}
    if not files:
        raise DataError(f"no file matches {pattern}")
    if len(kinds) > 1 or not kinds & {"parquet", "tar", "csv", "text"}:
        raise DataError(f"{pattern}: the files must all be parquet or all be tars; they are {_suffixes(files)}")
    return kinds.pop(), files, Path(os.path.commonpath([file.parent for file in files]))


def _looks_like_path(text: str) -> bool:
    owner, slash, rest = text.partition("/")
    return (
        not (owner and slash and rest)
        or "/" in rest
        or owner[0] in ".~"
        or bool(_kind(Path(text)))
        or Path(owner).exists()
    )


def _nearest_sibling(path: Path) -> str:
    if not path.parent.is_dir():
        return f" ({path.parent} does not exist either)"
    near = get_close_matches(path.name, [sibling.name for sibling in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _suffixes(files: list[Path]) -> str:
    names = sorted({file.suffix.lower() or "no suffix" for file in files})
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
