"""Read the images of an index: their files, hashes, pixels and thumbnails, ahead of the model."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip.core.errors import ConfigError, UnreadableImage
from mcip.core.prefetch import prefetch
from mcip.data.images import decode_reduced
from mcip.data.photo_metadata import photo_metadata
from mcip.data.thumbnails import thumbnail
from mcip.retrieval.reading import Content, content_hash

if TYPE_CHECKING:
    from mcip.data.pillow_transform import PillowTransform
    from mcip.data.transforms import ImageTransform


@dataclass
class Batch:
    """Images that were read.

    Attributes:
        numbers: Which of the listing they are.
        hashes: Of their files.
        embed: Positions in `numbers` of those that pixels were made of.
        pixels: Theirs, uint8 of shape (len(embed), 3, S, S).
        sizes: Their width and height in pixels.
        thumbnails: JPEG thumbnails by position in `numbers`.
        facts: What each of them says of itself, see `mcip.data.photo_metadata`; empty where it is not read.
        unreadable: Numbers of images that could not be read, with the reason.
    """

    numbers: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    embed: list[int] = field(default_factory=list)
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    sizes: list[tuple[int, int]] = field(default_factory=list)
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    facts: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)


class Reader:
    """Reads, hashes and decodes the images of a list of numbers.

    Attributes:
        content: Reads an image's file.
        transform: Makes pixels.
        thumbnails: Largest side of thumbnails in pixels; 0 makes none.
        known: Hashes of files that need no pixels.
        thumbnailed: Hashes of files that need no thumbnail; those that are known too are not decoded.
        facts: Whether to read what a photograph says of itself.
    """

    def __init__(
        self,
        content: Content,
        transform: ImageTransform | PillowTransform,
        thumbnails: int,
        known: Set[str],
        thumbnailed: Set[str],
        facts: bool = False,
    ) -> None:
        self.content = content
        self.transform = transform
        self.thumbnails = thumbnails
        self.known = known
        self.thumbnailed = thumbnailed
        self.facts = facts

    def __call__(self, numbers: list[int]) -> Batch:
        """Read the images of these numbers."""
        batch, pixels = Batch(), list[NDArray[np.uint8]]()
        for number in numbers:
            try:
                content = self.content(number)
                hashed, position = content_hash(content), len(batch.numbers)
                needs_pixels = hashed not in self.known
                needs_thumbnail = self.thumbnails > 0 and hashed not in self.thumbnailed
                if needs_pixels or needs_thumbnail:
                    small = self._thumbnail(content) if needs_thumbnail else None
                    if needs_pixels:
                        prepared, size = self.transform.read(content)
                        pixels.append(np.asarray(prepared))
                        batch.embed.append(position)
                        batch.sizes.append(size)
                    if small is not None:
                        batch.thumbnails[position] = small
            except UnreadableImage as error:
                batch.unreadable[number] = str(error)
            else:
                batch.numbers.append(number)
                batch.hashes.append(hashed)
                batch.facts.append(photo_metadata(content) if self.facts else {})
        if pixels:
            batch.pixels = np.stack(pixels)
        return batch

    def _thumbnail(self, content: bytes) -> bytes:
        # Twice its size, so that the filter of the thumbnail has something to work on.
        pixels, _ = decode_reduced(content, 2 * self.thumbnails)
        return thumbnail(Image.fromarray(pixels), self.thumbnails)


def read_ahead(reader: Reader, parts: Iterator[list[int]], workers: int) -> Iterable[Batch]:
    """The batches of these lists of numbers, in order; without workers, a thread reads the next one meanwhile.

    Raises:
        ConfigError: `workers` is negative.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}: it must be 0 or more.")
    if workers == 0:
        return prefetch(map(reader, parts))
    return _in_processes(reader, parts, workers)


def _in_processes(reader: Reader, parts: Iterator[list[int]], workers: int) -> Iterator[Batch]:
    # Lance runs threads, which a fork does not survive.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context, _begin, (reader,)) as pool:
        coming = deque(pool.submit(_read, part) for part in islice(parts, 2 * workers))
        try:
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(_read, part) for part in islice(parts, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


# The reader of a process that only reads.
_READERS: Final[list[Reader]] = []


def _begin(reader: Reader) -> None:
    _READERS.append(reader)
    if torch := sys.modules.get("torch"):
        # Each process reads one image at a time; more threads would only take the processors from each other.
        torch.set_num_threads(1)


def _read(numbers: list[int]) -> Batch:
    return _READERS[0](numbers)
