"""The captions artefact: unique mined captions, and per image the ids and similarities of its own.

`captions.arrow` holds `caption`, its row being the caption's id; `images.arrow` holds per image `id`, `captions` (ids,
best first) and `similarities` (cosine in the miner's space); `text-<model>` holds the embeddings of the captions by a
model's text tower. Both files are memory-mapped: opening them takes neither time nor memory, and no PyTorch.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.util import hash_array

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write
from mcip.data.text_column import TextColumn
from mcip.embeddings.store import Embeddings

if TYPE_CHECKING:
    import torch

    from mcip.models import Model

KIND = "captions"
CAPTIONS = "captions.arrow"
IMAGES = "images.arrow"
_SLICE = 65_536


def write_tables(
    folder: Path,
    ids: Sequence[str],
    offsets: NDArray[np.int64],
    captions: NDArray[np.int32],
    similarities: NDArray[np.float32],
    texts: Iterator[Sequence[str]],
) -> None:
    """Write the two files of a captions artefact.

    Args:
        folder: Where they go.
        ids: The N images.
        offsets: Shape (N + 1,); the captions of image i are those from offsets[i] to offsets[i + 1].
        captions: Their ids, best first.
        similarities: Their cosines.
        texts: The captions, in pieces.
    """
    values = pa.array(captions, pa.int32()), pa.array(similarities, pa.float32())
    lists = [pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), column) for column in values]
    images = pa.table({"id": pa.array(ids, pa.large_string()), "captions": lists[0], "similarities": lists[1]})
    schema = pa.schema([("caption", pa.large_string())])
    with atomic_write(folder / CAPTIONS) as temporary, pa.ipc.new_file(temporary, schema) as writer:
        for piece in texts:
            writer.write_batch(pa.record_batch([pa.array(piece, pa.large_string())], schema=schema))
    with atomic_write(folder / IMAGES) as temporary, pa.ipc.new_file(temporary, images.schema) as writer:
        writer.write_table(images)


class MinedCaptions(os.PathLike[str]):
    """A complete captions artefact; it can stand wherever its path can."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the artefact.

        Raises:
            ArtefactError: There is none in `folder`, or it is not complete.
        """
        self.artefact = Artefact.open(folder, KIND)
        self.folder = self.artefact.folder

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        return os.fspath(self.folder)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the captions and whose they are."""
        files = self.artefact.manifest["files"]
        return hashlib.sha256(f"{files[CAPTIONS]} {files[IMAGES]}".encode()).hexdigest()

    @cached_property
    def captions(self) -> TextColumn:
        """The unique captions; a caption's id is its place here."""
        return TextColumn(_MappedTable(self.folder / CAPTIONS).table["caption"])

    @cached_property
    def images(self) -> pa.Table:
        """Per image `id`, `captions` (ids, best first) and `similarities`."""
        return self._images.table

    @cached_property
    def _images(self) -> _MappedTable:
        return _MappedTable(self.folder / IMAGES)

    def text_embeddings(self, model: Model) -> Embeddings:
        """The captions' embeddings by `model`'s text tower, computed once and kept in the artefact."""
        from mcip.embeddings.encode import embed_captions

        folder = self.folder / f"text-{model.fingerprint[:16]}"
        return embed_captions(self.captions, model, folder, source="mined captions")

    def of_images(self, ids: Sequence[str] | pa.Array) -> CaptionLookup:
        """The captions of these images, by row; an image that could not be read when the captions were mined has none.

        Raises:
            ArtefactError: An image was not mined for, or not one of the images has a caption.
        """
        requested = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.large_string())
        rows = _rows_of(requested, self.images["id"].chunk(0))
        unknown = requested.take(pa.array((rows < 0).nonzero()[0]))
        unreadable = self.artefact.manifest["unreadable"]
        missing = [image for image in unknown.to_pylist() if image not in unreadable]
        if missing:
            raise ArtefactError(
                f"{self.folder} has no captions for {len(missing)} of {len(ids)} images, {missing[0]!r} among them: "
                "mine the captions for the same table that is trained on."
            )
        mined = self.images["captions"].chunk(0)
        # The row -1 is an empty list at the end, that of images which could not be read.
        offsets = np.append(mined.offsets.to_numpy(), len(mined.values))
        lookup = CaptionLookup(offsets[:-1][rows], offsets[1:][rows], mined.values.to_numpy(), self._images.release)
        self._images.release()
        if (lookup.starts == lookup.ends).all():
            raise ArtefactError(
                f"None of the {len(ids)} images has a caption in {self.folder}: none was as similar as the threshold "
                f"{self.artefact.manifest['threshold']}. Mine again with a lower one, or with --quantile."
            )
        return lookup


def _rows_of(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """The row of each id among others, -1 for those that are not there.

    They are found by hashes, 8 bytes each, and then compared: Python strings of all ids would take gigabytes.
    """
    hashes = np.concatenate([_hashes(among[start : start + _SLICE]) for start in range(0, len(among), _SLICE)])
    order = hashes.argsort()
    rows = np.empty(len(ids), np.int64)
    for start in range(0, len(ids), _SLICE):
        some = ids[start : start + _SLICE]
        places = np.searchsorted(hashes, _hashes(some), sorter=order)
        found = order[np.minimum(places, len(order) - 1)]
        same = pc.equal(some, among.take(pa.array(found)))
        rows[start : start + _SLICE] = np.where(same.to_numpy(zero_copy_only=False), found, -1)
    return rows


def _hashes(ids: pa.Array) -> NDArray[np.uint64]:
    hashes: NDArray[np.uint64] = hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)
    return hashes


class _MappedTable:
    """An Arrow file that is memory-mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.table: pa.Table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map))).read_all()

    def release(self) -> None:
        """Give back the pages that have been read, which count as memory of the process until then.

        A read maps the 16 pages around it, so that scattered reads would hold nearly all of the file after a while.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class CaptionLookup:
    """Which captions each row of a table has: those of row i are `ids[starts[i]:ends[i]]`.

    Attributes:
        starts: Shape (N,), int64.
        ends: Shape (N,), int64.
        ids: Integers, memory-mapped for instance.
        release: Gives back the memory of what was read of `ids`; called after each batch.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ids: NDArray[np.integer[Any]]
    release: Callable[[], None] = lambda: None

    def batch(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], torch.Tensor]:
        """The unique captions of a batch, and whose they are.

        Returns:
            The ids of the T unique captions, and bool targets of shape (B, T): a caption mined for several images of
            the batch is a positive of each of them.
        """
        import torch

        places = np.asarray(rows, np.int64)
        starts, ends = self.starts[places], self.ends[places]
        ids_by_image = [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]
        unique, columns = np.unique(np.concatenate(ids_by_image) if ids_by_image else self.ids[:0], return_inverse=True)
        self.release()
        targets = torch.zeros(len(rows), len(unique), dtype=torch.bool)
        targets[torch.from_numpy(np.repeat(np.arange(len(rows)), ends - starts)), torch.from_numpy(columns)] = True
        return unique.astype(np.int64), targets
