"""Small images: those that the index keeps, or made from the images' files and remembered for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TypeAlias

from mcip.data import decode
from mcip.data.thumbnails import thumbnail
from mcip.retrieval.index import Index
from mcip.server.files import IndexedFile

# The hash of the content, the side, and what changes when the file does.
_Key: TypeAlias = tuple[str, int, tuple[int, ...] | None]


class Thumbnails:
    """Thumbnails that were made; may be used by several threads."""

    def __init__(self, size: int, max_file: int) -> None:
        """Remember nothing yet.

        Args:
            size: Bytes that are remembered.
            max_file: Bytes of a file that is decoded.
        """
        self._size = size
        self._max_file = max_file
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, index: Index, id: str, side: int) -> tuple[bytes, str]:
        """An image as JPEG, at most `side` pixels wide and high, and a text that changes when the JPEG does.

        Raises:
            DataError: There is no such id.
            UnreadableImage: Its file is gone, or is not the one that was indexed.
        """
        table = index.engine.table
        file = IndexedFile.find(table, id)
        if side <= table.identity.thumbnails:
            small = index.thumbnail(id)
            if small is not None:
                return small, f"{file.hash}-{table.identity.thumbnails}"
        key, etag = (file.hash, side, file.state()), f"{file.hash}-{side}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key], etag
        with file.open(self._max_file).content as content:
            made = thumbnail(decode(content.read()), side)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._size:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made, etag
