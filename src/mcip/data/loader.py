"""Prepared pixels of a table's images, batch by batch: decoded once and kept where they fit in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcip.core.errors import ConfigError, DataError, UnreadableImage
from mcip.core.prefetch import prefetch
from mcip.data.table import Table
from mcip.data.transforms import ImageTransform

# From this many images on, a share of unreadable ones is reason to stop.
_ENOUGH_ROWS = 100


class Pixels:
    """Serves `transform.read` of a table's images in batches, and lists the unreadable ones.

    Example:
        >>> images = mcip.Pixels(table, model.transform("paper", train=True))  # doctest: +SKIP
        >>> for pixels, rows in images.batches([[0, 1], [2, 3]]): ...  # doctest: +SKIP

    Attributes:
        unreadable: Row to reason, of the images read so far that could not be decoded. They are left out of batches.
        cached: Whether decoded images are kept: the whole prepared table fits into `cache_gb`.
    """

    def __init__(
        self,
        table: Table,
        transform: ImageTransform,
        workers: int = 0,
        cache_gb: float = 2.0,
        max_unreadable: float = 0.01,
    ) -> None:
        """Decode nothing yet.

        Args:
            table: The images.
            transform: Its `read` is applied; `finish` is left to the caller.
            workers: Processes that decode ahead; 0 decodes in a thread of this process, one batch ahead.
            cache_gb: Memory for keeping prepared images, in 10^9 bytes; 0 keeps none.
            max_unreadable: Largest tolerated share of unreadable images among those read.
        """
        if workers < 0 or cache_gb < 0 or not 0 <= max_unreadable <= 1:
            raise ConfigError(
                f"workers ({workers}) and cache_gb ({cache_gb}) must be 0 or more, "
                f"max_unreadable ({max_unreadable}) a share from 0 to 1"
            )
        self.table = table
        self.transform = transform
        self.workers = workers
        self.max_unreadable = max_unreadable
        self.unreadable: dict[int, str] = {}
        side = transform.prepared_size
        self._shape = (3, side, side)
        self.cached = 0 < len(table) * 3 * side * side <= cache_gb * 1e9
        self._store = torch.empty(len(table), *self._shape, dtype=torch.uint8) if self.cached else None
        self._read = np.zeros(len(table), dtype=bool)

    def batches(self, row_batches: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield the pixels of each batch of rows, in the given order.

        Args:
            row_batches: Row numbers of each batch; may be endless, is read a few batches ahead.

        Yields:
            uint8 (b, 3, P, P) and the b rows, those of the batch without the unreadable ones.

        Raises:
            DataError: More than `max_unreadable` of the images read (of 100 or more, or of the whole table) cannot be
                decoded, or a row is not in the table.
        """
        remaining = iter(row_batches)
        if not (self.cached and self._read.all()):
            yield from self._decode_ahead(remaining)
        for rows in remaining:  # every image is in memory now
            yield self._collect(self._checked(rows))

    def _decode_ahead(self, remaining: Iterator[Sequence[int]]) -> Iterator[tuple[Tensor, list[int]]]:
        pending: deque[list[int]] = deque()
        requested = self._read.copy()

        def rows_to_decode() -> Iterator[list[int]]:
            for rows in remaining:
                pending.append(self._checked(rows))
                if self._store is None:
                    yield pending[-1]
                    continue
                missing = [row for row in dict.fromkeys(pending[-1]) if not requested[row]]
                requested[missing] = True
                yield missing
                if requested.all():
                    return

        decoder = _Decoder(self.table, self.transform)
        for decoded, good, bad in _loader(decoder, rows_to_decode(), self.workers):
            self.unreadable.update(bad)
            self._read[list(chain(good, bad))] = True
            if self._store is not None and good:
                self._store[torch.tensor(good)] = decoded
            self._check_share()
            rows = pending.popleft()
            yield (decoded, good) if self._store is None else self._collect(rows)

    def _collect(self, rows: list[int]) -> tuple[Tensor, list[int]]:
        assert self._store is not None
        kept = [row for row in rows if row not in self.unreadable]
        return self._store.index_select(0, torch.tensor(kept, dtype=torch.int64)), kept

    def _checked(self, rows: Sequence[int]) -> list[int]:
        checked = [int(row) for row in rows]
        for row in checked:
            if not 0 <= row < len(self.table):
                raise DataError(f"row {row} is not in {self.table.name}, which has {len(self.table)} rows")
        return checked

    def _check_share(self) -> None:
        read = int(self._read.sum())
        if len(self.unreadable) <= self.max_unreadable * read or (read < _ENOUGH_ROWS and read < len(self.table)):
            return
        ids = self.table.ids
        first = "\n".join(f"  row {row} ({ids[row]}): {why}" for row, why in list(self.unreadable.items())[:5])
        raise DataError(
            f"{len(self.unreadable)} of the {read} images of {self.table.name} read so far are unreadable, more than "
            f"max_unreadable = {self.max_unreadable:g} allows:\n{first}\n"
            "Repair or remove them, or raise max_unreadable."
        )


class _Decoder(Dataset[tuple[Tensor, list[int], dict[int, str]]]):
    """Decodes a list of rows: their pixels, the rows that could be read, and the reason for each that could not."""

    def __init__(self, table: Table, transform: ImageTransform) -> None:
        self.table = table
        self.transform = transform

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, list[int], dict[int, str]]:
        side = self.transform.prepared_size
        pixels = torch.empty(len(rows), 3, side, side, dtype=torch.uint8)
        good: list[int] = []
        bad: dict[int, str] = {}
        for row in rows:
            try:
                pixels[len(good)] = self.transform.read(self.table.image_source(row))[0]
            except UnreadableImage as error:
                bad[row] = str(error)
            else:
                good.append(row)
        return pixels[: len(good)], good, bad


def _loader(
    decoder: _Decoder, rows: Iterator[list[int]], workers: int
) -> Iterable[tuple[Tensor, list[int], dict[int, str]]]:
    if workers == 0:
        return prefetch(decoder[batch] for batch in rows)
    return DataLoader(decoder, batch_size=None, sampler=rows, num_workers=workers)
