"""The captions artefact: unique mined captions, and per image the ids and similarities of its own.

`captions.arrow` holds `caption`, its row being the caption's id; `images.arrow` holds per image `id`, `captions` (ids,
best first) and `similarities` (cosine in the miner's space); `text-<model>` holds the embeddings of the captions by a
model's text tower. Both files are memory-mapped: opening them takes neither time nor memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write
from mcip.embeddings.encode import embed_captions
from mcip.embeddings.store import Embeddings
from mcip.models import Model

KIND = "captions"
CAPTIONS = "captions.arrow"
IMAGES = "images.arrow"


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


class Texts(Sequence[str]):
    """Strings that stay in their file until they are looked at."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            some: list[str] = self._column[place].to_pylist()
            return some
        text: str = self._column[place].as_py()
        return text


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
    def captions(self) -> Texts:
        """The unique captions; a caption's id is its place here."""
        return Texts(_map(self.folder / CAPTIONS)["caption"])

    @cached_property
    def images(self) -> pa.Table:
        """Per image `id`, `captions` (ids, best first) and `similarities`."""
        return _map(self.folder / IMAGES)

    def text_embeddings(self, model: Model) -> Embeddings:
        """The captions' embeddings by `model`'s text tower, computed once and kept in the artefact."""
        folder = self.folder / f"text-{model.fingerprint[:16]}"
        return embed_captions(self.captions, model, folder, source="mined captions")

    def of_images(self, ids: Sequence[str] | pa.Array) -> CaptionLookup:
        """The captions of these images, by row; an image that could not be read when the captions were mined has none.

        Raises:
            ArtefactError: An image was not mined for, or not one of the images has a caption.
        """
        row_ids = pa.array(ids, pa.large_string())
        rows = pc.index_in(row_ids, self.images["id"].chunk(0))
        unreadable = pa.array(list(self.artefact.manifest["unreadable"]), pa.large_string())
        missing = row_ids.filter(pc.and_(rows.is_null(), pc.invert(pc.is_in(row_ids, unreadable))))
        if len(missing):
            raise ArtefactError(
                f"{self.folder} has no captions for {len(missing)} of {len(ids)} images, {missing[0].as_py()!r} among "
                "them: mine the captions for the same table that is trained on."
            )
        mined = self.images["captions"].chunk(0)
        # Behind the last image stands an empty list, for images that could not be read.
        offsets = np.append(mined.offsets.to_numpy(), len(mined.values))
        places = rows.fill_null(len(mined)).to_numpy()
        lookup = CaptionLookup(offsets[places], offsets[np.minimum(places + 1, len(mined))], mined.values.to_numpy())
        if (lookup.starts == lookup.ends).all():
            raise ArtefactError(
                f"None of the {len(ids)} images has a caption in {self.folder}: none was as similar as the threshold "
                f"{self.artefact.manifest['threshold']}. Mine again with a lower one, or with --quantile."
            )
        return lookup


def _map(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


@dataclass(frozen=True)
class CaptionLookup:
    """Which captions each row of a table has: those of row i are `ids[starts[i]:ends[i]]`.

    Attributes:
        starts: Shape (N,), int64.
        ends: Shape (N,), int64.
        ids: Integers, memory-mapped for instance.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ids: NDArray[np.integer[Any]]

    def batch(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], torch.Tensor]:
        """The unique captions of a batch, and whose they are.

        Returns:
            The ids of the T unique captions, and bool targets of shape (B, T): a caption mined for several images of
            the batch is a positive of each of them.
        """
        places = np.asarray(rows, np.int64)
        starts, ends = self.starts[places], self.ends[places]
        ids_by_image = [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]
        unique, columns = np.unique(np.concatenate(ids_by_image) if ids_by_image else self.ids[:0], return_inverse=True)
        targets = torch.zeros(len(rows), len(unique), dtype=torch.bool)
        targets[torch.from_numpy(np.repeat(np.arange(len(rows)), ends - starts)), torch.from_numpy(columns)] = True
        return unique.astype(np.int64), targets
