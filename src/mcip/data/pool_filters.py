"""Filters of a pool of captions: language, length, names of people, and captions that differ in little."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError

# Words of which an English sentence has one, and that are rare elsewhere.
_ENGLISH: Final = frozenset({
    "a", "an", "and", "are", "at", "by", "for", "from", "her", "his", "in", "into", "is", "its", "near", "of", "on",
    "over", "that", "the", "their", "this", "to", "under", "with",
})  # fmt: skip
# Words of the names of places.
_PLACES: Final = frozenset({
    "airport", "avenue", "beach", "bridge", "church", "city", "club", "county", "east", "great", "hotel", "house",
    "island", "lake", "los", "mountain", "museum", "national", "new", "north", "park", "river", "road", "saint", "san",
    "south", "st", "state", "states", "street", "united", "university", "west",
})  # fmt: skip
_NAME: Final = re.compile(r"\b[A-Z][a-z]+(?:\s(?:[A-Z]\.|[a-z]{2,3}))?\s[A-Z][a-z]+\b")
_TITLE: Final = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sir|President|Queen|King|Senator|Minister)\.?\s[A-Z]")
_WORD: Final = re.compile(r"[^\W_]+")
_ENTRIES: Final = "english, names, duplicates, words=LEAST-MOST"


@dataclass(frozen=True)
class PoolFilters:
    """What captions must be to stay in a pool.

    Attributes:
        english: Whether they must look English: letters of ASCII, and one of its commonest words.
        no_names: Whether captions with the name of a person are left out. A name is two words with capitals, the first
            of which does not begin the caption, or a capital after a title; a caption in which most words have capitals
            is a headline, not names.
        distinct: Whether captions that differ only in case, punctuation and digits are left out but for the first.
        words: The least and most words.
    """

    english: bool = False
    no_names: bool = False
    distinct: bool = False
    words: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> PoolFilters:
        """Read filters as the command takes them.

        Raises:
            ConfigError: There is no such filter, or no such numbers.

        Example:
            >>> PoolFilters.parse("english,words=3-40").words
            (3, 40)
        """
        flags = {"english": "english", "names": "no_names", "duplicates": "distinct"}
        found: dict[str, bool] = {}
        words = None
        for entry in text.split(","):
            name = entry.strip()
            if match := re.fullmatch(r"words=(\d+)-(\d+)", name):
                words = int(match[1]), int(match[2])
            elif name in flags:
                found[flags[name]] = True
            else:
                raise ConfigError(f"pool_filters: there is no filter {name!r}; there are {_ENTRIES}.")
        if words is not None and not 0 <= words[0] <= words[1]:
            raise ConfigError(f"pool_filters: words={words[0]}-{words[1]} leaves no caption.")
        return cls(words=words, **found)

    def keeps(self, caption: str) -> bool:
        """Whether a caption stays, whatever the others are."""
        words = _WORD.findall(caption)
        if self.words is not None and not self.words[0] <= len(words) <= self.words[1]:
            return False
        if self.english and not (caption.isascii() and _ENGLISH.intersection(map(str.lower, words))):
            return False
        return not (self.no_names and has_name(caption))

    def rows(self, captions: Sequence[str], slice_rows: int = 65_536) -> NDArray[np.int64]:
        """The numbers of the captions that stay, ascending; captions are read in slices."""
        return np.fromiter(self._rows(captions, slice_rows), np.int64)

    def _rows(self, captions: Sequence[str], slice_rows: int) -> Iterator[int]:
        known: set[int] = set()
        for start in range(0, len(captions), slice_rows):
            for row, caption in enumerate(captions[start : start + slice_rows], start):
                if not self.keeps(caption):
                    continue
                if self.distinct:
                    key = hash(" ".join(re.findall(r"[^\W\d_]+", caption.lower())))
                    if key in known:
                        continue
                    known.add(key)
                yield row


def has_name(caption: str) -> bool:
    """Whether a caption seems to name a person.

    Example:
        >>> has_name("a portrait of Ada Lovelace"), has_name("a tram in San Francisco")
        (True, False)
    """
    if _TITLE.search(caption):
        return True
    words = _WORD.findall(caption)
    if 2 * sum(word[0].isupper() for word in words) > len(words) + 2:
        return False
    return any(
        match.start() > 0 and not _PLACES.intersection(match[0].lower().split()) for match in _NAME.finditer(caption)
    )
