"""Thumbnails: those that the index keeps, or made from the images' files and cached."""

from __future__ import annotations

import threading
from collections import OrderedDict

from mcip.data import decode
from mcip.data.thumbnails import thumbnail
from mcip.retrieval.index import Index


class Thumbnails:
    """Thumbnails of an index; may be used by several threads."""

    def __init__(self, index: Index, size: int) -> None:
        """Cache nothing yet.

        Args:
            index: The index.
            size: Bytes that are cached.
        """
        self._index = index
        self._size = size
        self._cached: OrderedDict[tuple[int, str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, id: str, side: int) -> bytes:
        """An image as JPEG, at most `side` pixels wide and high.

        Raises:
            DataError: There is no such id.
            UnreadableImage: Its file is gone, or is not the one that was indexed.
        """
        table = self._index.engine.table
        if side <= table.identity.thumbnails:
            stored = self._index.thumbnail(id)
            if stored is not None:
                return stored
        # A newer version of the table may have another image by the same id.
        key = (table.version, id, side)
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
        content = thumbnail(decode(self._index.picture(id)[0]), side)
        with self._lock:
            self._bytes += len(content) - len(self._cached.pop(key, b""))
            self._cached[key] = content
            while self._bytes > self._size:
                self._bytes -= len(self._cached.popitem(last=False)[1])
        return content
