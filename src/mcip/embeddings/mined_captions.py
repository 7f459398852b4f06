"""The captions artefact: unique mined captions, and per image the ids and similarities of its own.

`captions.parquet` holds `caption`, its row being the caption's id; `images.parquet` holds per image `id`, `captions`
(ids, best first) and `similarities` (cosine in the miner's space); `text-<model>` holds the embeddings of the captions
by a model's text tower.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.core.files import read_parquet
from mcip.embeddings.encode import embed_captions
from mcip.embeddings.store import Embeddings
from mcip.models import Model

KIND = "captions"
CAPTIONS = "captions.parquet"
IMAGES = "images.parquet"


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
    def captions(self) -> list[str]:
        """The unique captions; a caption's id is its place here."""
        texts: list[str] = read_parquet(self.folder / CAPTIONS)["caption"].to_pylist()
        return texts

    @cached_property
    def images(self) -> pa.Table:
        """Per image `id`, `captions` (ids, best first) and `similarities`."""
        return read_parquet(self.folder / IMAGES)

    def text_embeddings(self, model: Model) -> Embeddings:
        """The captions' embeddings by `model`'s text tower, computed once and kept in the artefact."""
        folder = self.folder / f"text-{model.fingerprint[:16]}"
        return embed_captions(self.captions, model, folder, source="mined captions")

    def of_images(self, ids: Sequence[str]) -> CaptionLookup:
        """The captions of these images, by row; an image that could not be read when the captions were mined has none.

        Raises:
            ArtefactError: An image was not mined for, or not one of the images has a caption.
        """
        row_of = {image: row for row, image in enumerate(self.images["id"].to_pylist())}
        unreadable = self.artefact.manifest["unreadable"]
        missing = [image for image in ids if image not in row_of and image not in unreadable]
        if missing:
            raise ArtefactError(
                f"{self.folder} has no captions for {len(missing)} of {len(ids)} images, {missing[0]!r} among them: "
                "mine the captions for the same table that is trained on."
            )
        rows = pa.array([row_of.get(image) for image in ids], pa.int64())
        mined = self.images["captions"].take(rows).combine_chunks()
        lengths = mined.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if offsets[-1] == 0:
            raise ArtefactError(
                f"None of the {len(ids)} images has a caption in {self.folder}: none was as similar as the threshold "
                f"{self.artefact.manifest['threshold']}. Mine again with a lower one, or with --quantile."
            )
        return CaptionLookup(offsets, mined.flatten().to_numpy(zero_copy_only=False).astype(np.int64))


@dataclass(frozen=True)
class CaptionLookup:
    """Which captions each row of a table has: those of row i are `ids[offsets[i]:offsets[i + 1]]`."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]

    def batch(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], torch.Tensor]:
        """The unique captions of a batch, and whose they are.

        Returns:
            The ids of the T unique captions, and bool targets of shape (B, T): a caption mined for several images of
            the batch is a positive of each of them.
        """
        places = np.asarray(rows, np.int64)
        starts, ends = self.offsets[places], self.offsets[places + 1]
        ids_by_image = [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]
        unique, columns = np.unique(np.concatenate(ids_by_image) if ids_by_image else self.ids[:0], return_inverse=True)
        targets = torch.zeros(len(rows), len(unique), dtype=torch.bool)
        targets[torch.from_numpy(np.repeat(np.arange(len(rows)), ends - starts)), torch.from_numpy(columns)] = True
        return unique, targets
