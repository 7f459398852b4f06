"""Read the pictures of an index: their files, hashes, pixels and thumbnails, ahead of the model."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcip.core.errors import ConfigError, UnreadableImage
from mcip.data import decode
from mcip.data.loader import prefetch
from mcip.data.thumbnails import thumbnail
from mcip.data.transforms import ImageTransform
from mcip.retrieval.listing import Content


def content_hash(content: bytes) -> str:
    """SHA-256 of a picture's file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Batch:
    """Pictures that were read: `embed` are the positions of those in `numbers` that pixels were made of."""

    numbers: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    embed: list[int] = field(default_factory=list)
    pixels: Tensor = field(default_factory=lambda: torch.empty(0))
    sizes: list[tuple[int, int]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)


class Reader(Dataset[Batch]):
    """Reads, hashes and decodes the pictures of a list of numbers; those of known content are not decoded."""

    def __init__(self, content: Content, transform: ImageTransform, thumbnails: int, known: Set[str]) -> None:
        self.content = content
        self.transform = transform
        self.thumbnails = thumbnails
        self.known = known

    def __getitem__(self, numbers: list[int]) -> Batch:
        batch, pixels = Batch(), list[Tensor]()
        for number in numbers:
            try:
                content = self.content(number)
                hashed = content_hash(content)
                if hashed not in self.known:
                    picture = decode(content)
                    pixels.append(self.transform.prepare(picture))
                    batch.embed.append(len(batch.numbers))
                    batch.sizes.append(picture.size)
                    if self.thumbnails:
                        batch.thumbnails.append(thumbnail(picture, self.thumbnails))
            except UnreadableImage as error:
                batch.unreadable[number] = str(error)
            else:
                batch.numbers.append(number)
                batch.hashes.append(hashed)
        if pixels:
            batch.pixels = torch.stack(pixels)
        return batch


def read_ahead(reader: Reader, parts: Iterator[list[int]], workers: int) -> Iterable[Batch]:
    """The batches of these lists of numbers, in order; without workers, a thread makes the next one meanwhile.

    Raises:
        ConfigError: `workers` is negative.
    """
    if workers < 0:
        raise ConfigError(f"workers is {workers}: it must be 0 or more.")
    if workers == 0:
        return prefetch(reader[numbers] for numbers in parts)
    # Lance runs threads, which a fork does not survive.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return DataLoader(reader, batch_size=None, sampler=parts, num_workers=workers, multiprocessing_context=context)
