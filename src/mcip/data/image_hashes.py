"""Hashes of a table's images, embedded or on disk: what says that the images are the same ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.core.hashes import BAR_FROM, DIGEST_BYTES, THREADS, blake, hash_files, note_not_remembered
from mcip.core.progress import Advance, progress

_IMAGES_AT_ONCE: Final = 64


@dataclass(frozen=True)
class ImageHashes:
    """Where the hashes of a table's embedded images are remembered, and which of them a part of the table has.

    Attributes:
        file: A .npy file of uint8 (count, 16); a row of zeros is not known yet.
        count: Number of images of the whole table.
        numbers: int64 (n,), the part's rows in the whole table; None for all.
    """

    file: Path
    count: int
    numbers: NDArray[np.int64] | None = None

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageHashes:
        """The hashes of these rows."""
        rows = np.asarray(indices, dtype=np.int64)
        return ImageHashes(self.file, self.count, rows if self.numbers is None else self.numbers[rows])

    def load(self) -> NDArray[np.uint8]:
        """All hashes of the whole table, zeros where they are not known."""
        with suppress(OSError, ValueError, EOFError):  # not written yet, or damaged
            known: NDArray[np.uint8] = np.load(self.file, allow_pickle=False)
            if known.shape == (self.count, DIGEST_BYTES) and known.dtype == np.uint8:
                return known
        return np.zeros((self.count, DIGEST_BYTES), np.uint8)

    def add(self, hashes: NDArray[np.uint8], embedded: NDArray[np.bool_]) -> None:
        """Remember the hashes of the part's rows that are embedded."""
        known = self.load()
        rows = np.arange(self.count) if self.numbers is None else self.numbers
        known[rows[embedded]] = hashes[embedded]
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.file.parent, suffix=".npy", delete=False) as temporary:
                np.save(temporary, known)
            Path(temporary.name).replace(self.file)
        except OSError as error:
            note_not_remembered(error)


def hash_images(images: datasets.Dataset, remembered: ImageHashes | None) -> NDArray[np.uint8]:
    """BLAKE2b of each image's file, whether it is embedded or on disk.

    Args:
        images: The column `image` of {"bytes", "path"}.
        remembered: Where the hashes of embedded images are kept; None hashes them each time.

    Returns:
        uint8 (n, 16); zeros where a file is missing, and for images on object storage, which are not read.
    """
    hashes = np.zeros((len(images), DIGEST_BYTES), np.uint8)
    if remembered is not None:
        known = remembered.load()
        hashes[:] = known if remembered.numbers is None else known[remembered.numbers]
    unknown = np.flatnonzero(~hashes.any(axis=1))
    if not len(unknown):
        return hashes
    part = images if len(unknown) == len(images) else images.select(unknown, keep_in_memory=True)
    embedded = np.zeros(len(images), bool)
    paths: dict[int, str] = {}
    for start, contents, names in _embedded(part):
        for at, (content, name) in enumerate(zip(contents, names, strict=True), start):
            row = int(unknown[at])
            if content is not None:
                hashes[row] = np.frombuffer(content, np.uint8)
                embedded[row] = True
            elif name is not None and "://" not in name:
                paths[row] = name
    if remembered is not None and embedded.any():
        remembered.add(hashes, embedded)
    for row, digest in zip(paths, hash_files(list(paths.values())), strict=True):
        hashes[row] = np.frombuffer(digest, np.uint8)
    return hashes


def _embedded(images: datasets.Dataset) -> Iterator[tuple[int, list[bytes | None], list[str | None]]]:
    """By batches: number of the first row, hashes of the embedded images (None for files), and paths."""
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(THREADS))
        advance: Advance | None = None
        start = 0
        for batch in images.with_format("arrow").iter(_IMAGES_AT_ONCE):
            column = batch["image"].combine_chunks()
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            embedded = any(chunk.field("bytes").null_count < len(chunk) for chunk in chunks)
            names = [value for chunk in chunks for value in chunk.field("path").to_pylist()]
            digests: list[bytes | None] = [None] * len(names)
            if embedded:
                digests = list(threads.map(_hash_value, (value for chunk in chunks for value in chunk.field("bytes"))))
            if advance is None and len(images) >= BAR_FROM and embedded:
                advance = stack.enter_context(progress("hashing images", len(images), "images", start))
            yield start, digests, names
            start += len(names)
            if advance is not None:
                advance(len(names))


def _hash_value(value: pa.BinaryScalar) -> bytes | None:
    return blake(value.as_buffer()).digest() if value.is_valid else None
