"""Small pictures: those that the index keeps, or made from the pictures' files and remembered for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict

from mcip.data import decode
from mcip.retrieval.index import Index
from mcip.retrieval.prefetch import thumbnail


class Thumbnails:
    """Thumbnails of an index; may be used by several threads."""

    def __init__(self, index: Index, size: int) -> None:
        """Remember nothing yet.

        Args:
            index: The index.
            size: Bytes that are remembered.
        """
        self._database = index
        self._size = size
        self._kept: OrderedDict[tuple[int, str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, id: str, side: int) -> bytes:
        """A picture as JPEG, at most `side` pixels wide and high.

        Raises:
            DataError: There is no such id.
            UnreadableImage: Its file is gone, or is not the one that was indexed.
        """
        table = self._database.engine.table
        if side <= table.identity.thumbnails:
            small = self._database.thumbnail(id)
            if small is not None:
                return small
        # A newer version of the table may have another picture by the same id.
        key = (table.version, id, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = thumbnail(decode(self._database.picture(id)[0]), side)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._size:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made
