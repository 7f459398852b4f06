"""The names of columns: the table's found among a source's, whatever their case, and messages about those missing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from mcip.core.errors import ConfigError, DataError
from mcip.data.schema import NAMES, Source, folded

# What every message about a column that is missing or ambiguous ends with.
NAME_THEM = "Name the columns, for example --columns image=path,label=category (in Python columns={'image': 'path'})"


def parse_columns(text: str) -> dict[str, str]:
    """Read the columns of a table as the command takes them.

    Args:
        text: Pairs of the table's name and the source's. A pair whose name holds a comma stands in double quotes:
            'image=path,"label=size, cm"'.

    Raises:
        ConfigError: A pair is incomplete, a name is not one of the table's, or comes twice.

    Example:
        >>> parse_columns("image=path,label=category")
        {'image': 'path', 'label': 'category'}
    """
    columns: dict[str, str] = {}
    try:
        pairs = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise ConfigError(f"columns {text!r}: {error}") from error
    for pair in pairs:
        name, equals, source_name = (part.strip() for part in pair.partition("="))
        if not (name and equals and source_name):
            raise ConfigError(f"columns {text!r}: {pair!r} is no pair such as image=path")
        if name in columns:
            raise ConfigError(f"columns {text!r} names {name} twice")
        _check_name(name)
        columns[name] = source_name
    if not columns:
        raise ConfigError("columns is empty: give pairs such as image=path,label=category, or leave it out")
    return columns


def columns_of(columns: Mapping[str, str] | str | None) -> dict[str, str]:
    """The columns that are named, however they were given: as a mapping, as a text for `parse_columns`, or not."""
    return parse_columns(columns) if isinstance(columns, str) else dict(columns or {})


def caption_column(columns: Mapping[str, str] | str | None) -> str | None:
    """The column that holds the captions of a pool, where `columns` names it.

    Raises:
        ConfigError: `columns` names others only.
    """
    named = columns_of(columns)
    if named and not named.keys() & {"caption", "captions"}:
        raise ConfigError(f"columns names {quoted(named)}; of a pool of captions it names caption, as in caption=title")
    return named.get("caption", named.get("captions"))


def write_columns(columns: Mapping[str, str]) -> str:
    """The text from which `parse_columns` reads these columns; empty where there are none.

    Example:
        >>> write_columns({"image": "path", "label": "size, cm"})
        'image=path,"label=size, cm"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([f"{ours}={theirs}" for ours, theirs in columns.items()])
    return text.getvalue()


def find_columns(source: Source, columns: Mapping[str, str]) -> dict[str, str]:
    """Match the table's column names with the source's; case and spaces around the source's names do not count.

    Raises:
        ConfigError: `columns` names a column that the table does not have.
        DataError: It names one that the source does not have, or two of the source's could be meant.
    """
    present = list(source.rows.column_names)
    matches = {name: _match(name, present, source.name) for name in NAMES if name not in columns}
    found = {name: match for name, match in matches.items() if match is not None}
    for name, source_name in columns.items():
        _check_name(name)
        match = _match(source_name, present, source.name)
        if match is None:
            raise DataError(
                f"{source.name} has no column {source_name!r} (named for {name!r}){nearest(source_name, present)}; "
                f"its columns are {quoted(present)}"
            )
        found[name] = match
    if "caption" in columns and "captions" not in columns:
        found.pop("captions", None)
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like `word`, or nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def quoted(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(map(repr, names))


def _match(name: str, present: Sequence[str], source: str) -> str | None:
    if name in present:
        return name
    like = [other for other in present if folded(other) == folded(name)]
    if len(like) > 1:
        raise DataError(f"{source}: the columns {quoted(like)} could all be {name!r}. {NAME_THEM}")
    return like[0] if like else None


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ConfigError(f"columns: there is no table column {name!r}{nearest(name, NAMES)}; use {quoted(NAMES)}")
