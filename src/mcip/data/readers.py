"""Readers: from a folder, CSV, parquet, tars or the hub to rows as the source has them."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import DataError
from mcip.data.cache import cached, generated, quiet
from mcip.data.locate import SPLITS, locate, normal_split, split_of
from mcip.data.schema import FEATURES, Source
from mcip.data.tars import tar_rows


def open_source(source: str | Path) -> Source:
    """Open a source for `read_table`, with the reader of its kind."""
    kind, files, root = locate(source)
    if kind == "hub":
        return _hub(str(source))
    return _READERS[kind](files, root)


def csv_rows(file: Path) -> datasets.Dataset:
    """Read a CSV or TSV file with a header line; every cell is a string, an empty one null."""

    def generate() -> Iterator[dict[str, str | None]]:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True)
            try:
                header = next(lines)
                row = 0
                for cells in lines:
                    if not cells:
                        continue
                    row += 1
                    if len(cells) != len(header):
                        raise DataError(
                            f"row {row} of {file.name} (line {lines.line_num}) has {len(cells)} cells, the header "
                            f"{len(header)}: put text that holds the delimiter into double quotes"
                        )
                    yield {name: cell or None for name, cell in zip(header, cells, strict=True)}
            except csv.Error as error:
                raise DataError(f"line {lines.line_num} of {file.name}: {error}") from error
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8 text ({error.reason}): save it as UTF-8") from error

    header = _csv_header(file)
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return generated(generate, features, [file], "csv")


def parquet_rows(files: list[Path], columns: list[str] | None = None) -> datasets.Dataset:
    """Read parquet files of one schema, memory-mapped."""
    names = [str(file) for file, count in zip(files, parquet_counts(files), strict=True) if count]
    if not names:
        raise DataError(f"{files[0] if len(files) == 1 else files[0].parent} has no rows")

    def make(cache_dir: str, _: str) -> datasets.Dataset:
        return datasets.Dataset.from_parquet(names, cache_dir=cache_dir, columns=columns)

    return cached(make, files, f"parquet {columns}")


def parquet_counts(files: list[Path]) -> list[int]:
    """The number of rows of each parquet file."""
    counts = []
    for file in files:
        try:
            counts.append(pq.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {file}, it is cut off or no parquet file: {error}") from error
    return counts


def text_rows(files: list[Path]) -> datasets.Dataset:
    """Read text files, a row a line, as the column `text`, memory-mapped."""
    names = []
    for file in files:
        try:
            with file.open(encoding="utf-8-sig") as lines:
                if any(line.strip() for line in lines):
                    names.append(str(file))
        except (UnicodeDecodeError, OSError) as error:
            raise DataError(f"cannot read {file} as UTF-8 text: {error}") from error
    if not names:
        raise DataError(f"{files[0] if len(files) == 1 else files[0].parent} holds no captions: the pool is empty")

    def make(cache_dir: str, _: str) -> datasets.Dataset:
        return datasets.Dataset.from_text(names, cache_dir=cache_dir, encoding="utf-8-sig")

    return cached(make, files, "text")


def hub_rows(name: str) -> datasets.DatasetDict:
    """Load all splits of a data set of the hub, named "owner/name" or "owner/name:configuration"."""
    repository, _, configuration = name.partition(":")
    with quiet():
        try:
            loaded = datasets.load_dataset(repository, configuration or None)
        except Exception as error:
            raise DataError(
                f"{name} is no file or folder here, and loading it as a data set of the hub failed: "
                f"{str(error).rstrip('.')}. Check the name; a data set of the hub needs a network at its first use"
            ) from error
    if not isinstance(loaded, datasets.DatasetDict):
        raise DataError(f"{name}: the hub gave a {type(loaded).__name__}, not a data set with splits")
    return loaded


def _class_folders(files: list[Path], root: Path) -> Source:
    relative = [file.relative_to(root) for file in files]
    split_folders = all(len(path.parts) > 1 and path.parts[0].lower() in SPLITS for path in relative)
    columns: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for path, file in zip(relative, files, strict=True):
        identity = path.as_posix()
        try:
            identity.encode()
        except UnicodeEncodeError:
            raise DataError(f"{root}: the file name {os.fsencode(path)!r} is not UTF-8: rename it") from None
        folders = path.parts[1:-1] if split_folders else path.parts[:-1]
        columns["image"].append({"bytes": None, "path": str(file.absolute())})
        columns["label"].append("/".join(folders) or None)
        columns["captions"].append([])
        columns["split"].append(normal_split(path.parts[0]) if split_folders else "train")
        columns["id"].append(identity)
    return Source(datasets.Dataset.from_dict(columns, features=FEATURES), str(root), root)


def _one_csv(files: list[Path], root: Path) -> Source:
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise DataError(f"{root} holds {len(files)} CSV files ({names}): give the path of the one you mean")
    rows = csv_rows(files[0])
    return Source(rows, files[0].name, files[0].parent, ((split_of(files[0], root), len(rows)),))


def _parquet(files: list[Path], root: Path) -> Source:
    rows = parquet_rows(files)
    splits = tuple((split_of(file, root), count) for file, count in zip(files, parquet_counts(files), strict=True))
    return Source(rows, _name(files, root), root, splits)


def _tars(files: list[Path], root: Path) -> Source:
    return Source(tar_rows(files, root), _name(files, root))


def _text(files: list[Path], root: Path) -> Source:
    raise DataError(f"{_name(files, root)} is text: it can be a pool of captions, but not a table of images")


def _hub(name: str) -> Source:
    parts = hub_rows(name)
    rows = datasets.concatenate_datasets([parts[split] for split in parts])
    return Source(rows, name, None, tuple((normal_split(str(split)), len(parts[split])) for split in parts))


def _name(files: list[Path], root: Path) -> str:
    return files[0].name if len(files) == 1 else str(root)


def _csv_header(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ","), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if not header:
        raise DataError(f"{file} is empty: it needs a header line such as image,label,captions,split,id")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{file}: the header names {', '.join(map(repr, twice))} more than once")
    return header


_READERS: Final[dict[str, Callable[[list[Path], Path], Source]]] = {
    "images": _class_folders,
    "csv": _one_csv,
    "parquet": _parquet,
    "tar": _tars,
    "text": _text,
}
