"""From official folders, split lists and .mat files to tables."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from mcip.core.errors import DataError, McipError, UnreadableImage
from mcip.data import Table, read_table
from mcip.data.locate import normal_split
from mcip.data.schema import FEATURES
from mcip.evaluation.dataset_roots import AbsentError

_TABLES = ("*.tar", "*.parquet", "*/*.tar", "*/*.parquet")


def is_table(place: str, *official: str) -> bool:
    """Whether a data set lies there as tars, parquet files or a data set of the hub, rather than in official files.

    Args:
        place: Where it lies.
        official: Patterns of the official files or folders; tars beside them are what they were unpacked from.
    """
    folder = Path(place)
    if not folder.is_dir():
        return True
    return not _has(folder, official) and _has(folder, _TABLES)


def _has(folder: Path, patterns: Iterable[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def table_split(place: str, split: str) -> Table:
    """The rows of a split, all of them where the table has only one."""
    table = read_table(place)
    return table.select(split) if normal_split(split) in table.splits else table


def files_table(
    root: Path,
    names: Iterable[str],
    labels: Iterable[str | None] | None = None,
    captions: Iterable[Sequence[str]] | None = None,
) -> Table:
    """A table of image files, which need not all be there: those that are not count as unreadable.

    Args:
        root: Where the names start.
        names: Paths below `root`, which are the ids.
        labels: One for each, or None for none.
        captions: Those of each image.

    Raises:
        DataError: There are no names, or one comes twice.
    """
    ids = list(names)
    if not ids:
        raise DataError(f"{root}: the list of images is empty.")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{root}: the image {twice} is listed twice.")
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": None, "path": str((root / name).absolute())} for name in ids],
        "label": [None] * len(ids) if labels is None else list(labels),
        "captions": [[] for _ in ids] if captions is None else [list(texts) for texts in captions],
        "split": ["test"] * len(ids),
        "id": ids,
    }
    return Table(datasets.Dataset.from_dict(columns, features=FEATURES), str(root))


def relabelled(table: Table, labels: Sequence[str | None]) -> Table:
    """The same images with other labels."""
    return _with_column(table, "label", list(labels))


def recaptioned(table: Table, captions: Sequence[Sequence[str]]) -> Table:
    """The same images with other captions."""
    return _with_column(table, "captions", [list(texts) for texts in captions])


def _with_column(table: Table, name: str, values: list[Any]) -> Table:
    features = datasets.Features({name: FEATURES[name]})
    column = datasets.Dataset.from_dict({name: values}, features=features)
    rows = table.rows.remove_columns(name)
    return Table(datasets.concatenate_datasets([rows, column], axis=1).select_columns(list(FEATURES)), table.name)


def cropped(table: Table, boxes: Sequence[Sequence[float]]) -> Table:
    """The images cut to their boxes, held in memory as PNG; an image that cannot be decoded is left as it is.

    Args:
        table: The images.
        boxes: x0, y0, x1, y1 of each in pixels, the upper left corner first.

    Raises:
        DataError: A box is empty or outside its image.
    """
    images: list[dict[str, Any]] = []
    for row, box in enumerate(boxes):
        try:
            image = table.image(row)
        except UnreadableImage:
            images.append({"bytes": None, "path": str(table.image_source(row))})
            continue
        x0, y0, x1, y1 = (round(value) for value in box)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)
        if x0 >= x1 or y0 >= y1:
            raise DataError(
                f"{table.name}: the box {[float(value) for value in box]} of {table.ids[row]} does not lie in the "
                f"image of {image.width} x {image.height} pixels."
            )
        stream = io.BytesIO()
        image.crop((x0, y0, x1, y1)).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": f"{table.ids[row]}.png"})
    columns = {
        "image": images, "label": table.labels, "captions": table.captions, "split": table.splits,
        "id": [f"{name} cropped" for name in table.ids],
    }  # fmt: skip
    return Table(datasets.Dataset.from_dict(columns, features=FEATURES), table.name)


def lines_of(path: Path) -> list[str]:
    """The lines of a split list that are not blank.

    Raises:
        AbsentError: It is missing.
        DataError: It is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AbsentError(f"There is no file {path}: it is part of the official release.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def json_of(path: Path) -> Any:
    """The content of a JSON file of the official release.

    Raises:
        AbsentError: It is missing.
        DataError: It is not JSON.
    """
    try:
        return json.loads("\n".join(lines_of(path)))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def mat_of(path: Path, *names: str) -> Mapping[str, Any]:
    """The variables of a MATLAB file, as arrays: numbers, texts, cells and structures, never code.

    Raises:
        AbsentError: It is missing.
        DataError: It is damaged, or lacks one of the variables `names`.
        McipError: SciPy, which reads it, is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise McipError(f"{path} is a MATLAB file, which SciPy reads: pip install 'mcip[benchmarks]'.") from error
    if not path.is_file():
        raise AbsentError(f"There is no file {path}: it is part of the official release.")
    try:
        content: Mapping[str, Any] = loadmat(path)
    except Exception as error:  # SciPy raises many kinds of errors on damaged files
        raise DataError(f"{path} is damaged or not a MATLAB 5 file: {error}") from error
    for name in names:
        if name not in content:
            raise DataError(f"{path} has no variable {name!r}: it is not the official file.")
    return content


def folder_with(root: Path, *names: str) -> Path:
    """The first of the folders `names` that `root` has.

    Raises:
        AbsentError: It has none of them.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise AbsentError(f"{root} has no folder {' or '.join(names)}.")
