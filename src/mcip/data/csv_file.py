"""CSV and TSV files, every cell a text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import datasets

from mcip.core.errors import DataError
from mcip.data.cache import generated

# More characters than a cell has on purpose: a quote that is never closed takes in the rest of the file.
_CELL_CHARACTERS: Final = 2**24


def csv_rows(file: Path) -> datasets.Dataset:
    """Read a CSV or TSV file with a header line; every cell is a string, an empty one null.

    Spaces around the names of the header do not count. Where the header puts a space behind the delimiter, those in
    the rows do not count either. A column without a name is left out if it numbers the rows, as pandas writes it, or
    is empty.

    Raises:
        DataError: It is not CSV in UTF-8, with the line; a name comes twice; a cell belongs to no named column.
    """
    names, spaced = _header(file)

    def rows() -> Iterator[dict[str, Any]]:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = _reader(stream, file, spaced)
            try:
                next(lines)
                row = 0
                for cells in lines:
                    if not cells:
                        continue
                    row += 1
                    where = f"row {row} of {file.name} (line {lines.line_num})"
                    if len(cells) != len(names):
                        raise DataError(
                            f"{where} has {len(cells)} cells, the header {len(names)}: put text that holds the "
                            "delimiter into double quotes"
                        )
                    yield _row(names, cells, where)
            except csv.Error as error:
                raise DataError(f"line {lines.line_num} of {file.name}: {error}") from error
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8 text ({error.reason}): save it as UTF-8") from error

    features = datasets.Features({name: datasets.Value("string") for name in names if name})
    return generated(rows, features, [file], "csv")


def _row(names: list[str], cells: list[str], where: str) -> dict[str, Any]:
    for number, (name, cell) in enumerate(zip(names, cells, strict=True), start=1):
        if not name and cell.strip() and not cell.strip().isdecimal():
            raise DataError(f"{where}: column {number} holds {cell[:50]!r}, and has no name in the header: give it one")
    return {name: cell or None for name, cell in zip(names, cells, strict=True) if name}


def _header(file: Path) -> tuple[list[str], bool]:
    """The names of the columns, and whether the delimiter is followed by a space."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header: list[str] = next(_reader(stream, file, False), [])
            spaced = any(name.startswith(" ") for name in header[1:])
            if spaced:
                stream.seek(0)
                header = next(_reader(stream, file, True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    names = [name.strip() for name in header]
    if len(names) == 1 and any(mark in names[0] for mark in ";|\t"):
        raise DataError(
            f"{file}: its header is one column {names[0]!r}: separate the columns by commas, or by tabs in a .tsv file"
        )
    if not any(names):
        raise DataError(f"{file} is empty: it needs a header line such as image,label,captions,split,id")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: the header names {', '.join(map(repr, twice))} more than once")
    return names, spaced


def _reader(stream: Any, file: Path, spaced: bool) -> Any:
    # The limit holds for the whole process, so it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARACTERS))
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    return csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=spaced)
