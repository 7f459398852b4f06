"""A column of texts that stays in the memory map, used like a list; and what is found out about it without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Texts that are Python strings at a time.
_AT_ONCE: Final = 65_536


class TextColumn(Sequence[str]):
    """The texts of a column without null; a text becomes a Python string when it is looked at.

    Example:
        >>> TextColumn(pa.chunked_array([["a", "b"], ["c"]]))[1:]
        ['b', 'c']
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return [self[number] for number in range(start, stop, step)]
            texts: list[str] = self.column.slice(start, max(0, stop - start)).to_pylist()
            return texts
        text: str = self.column[int(place)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for part in parts(self.column):
            yield from part.to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return bool(self.column.equals(other.column))
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


def parts(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """The column in parts of the same number of rows, however it is chunked."""
    for start in range(0, len(column), _AT_ONCE):
        yield column.slice(start, _AT_ONCE)


def canonical_bytes(part: pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """The bytes of a column of texts, or of lists of them, which are equal for equal columns only.

    They are the lengths, -1 for null, and then the texts.
    """
    if pa.types.is_list(part.type):
        yield pc.fill_null(pc.list_value_length(part), -1).to_numpy().tobytes()
        part = pc.list_flatten(part)
    yield pc.fill_null(pc.binary_length(part), -1).to_numpy().tobytes()
    for chunk in pc.fill_null(part, "").chunks:
        _, places, texts = chunk.buffers()
        if len(chunk) and texts is not None:
            ends = np.frombuffer(places, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            yield memoryview(texts)[ends[0] : ends[-1]]


def first_repeated(column: pa.ChunkedArray) -> tuple[int, int] | None:
    """The first row whose text stands in an earlier row, behind that one; None where all texts differ.

    Texts are compared by 64-bit hashes, 8 bytes a row, and only those of equal hashes themselves.
    """
    hashes = _hashes(column)
    hashes.sort()
    if not (hashes[1:] == hashes[:-1]).any():
        return None
    hashes = _hashes(column)
    order = np.argsort(hashes, kind="stable")
    equal = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    first: dict[Any, int] = {}
    for row in np.unique(np.concatenate([order[equal], order[equal + 1]])).tolist():
        if (earlier := first.setdefault(column[row].as_py(), row)) != row:
            return earlier, row
    return None


def numbered(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts in sorted order, and the number of each row's among them, -1 where it is null."""
    found = pc.unique(column).drop_null()
    found = found.take(pc.sort_indices(found))
    numbers = pc.fill_null(pc.index_in(column, found), -1).to_numpy().astype(np.int64)
    return found.to_pylist(), numbers


def _hashes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    hashes = np.empty(len(column), np.int64)
    for start, part in zip(range(0, len(column), _AT_ONCE), parts(column), strict=True):
        hashes[start : start + len(part)] = np.fromiter(map(hash, part.to_numpy()), np.int64, len(part))
    return hashes
