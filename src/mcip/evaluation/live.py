"""The vectors of a model that is being trained: computed once for the locked tower, each time for the trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mcip.core.choices import Precision, TransformName
from mcip.core.device import autocast
from mcip.core.errors import DataError
from mcip.data import Pixels, Table
from mcip.embeddings.encode import encode_pixels
from mcip.evaluation.encoders import Encoded, class_embeddings
from mcip.models import Model

Trained: TypeAlias = Literal["image", "text", "both", "adapter"]


class LiveEncoder:
    """Encodes each image and text once until `renew`, which forgets what the trained towers gave.

    Decoded pixels are kept where they fit in memory, so that the next validation decodes nothing.
    """

    def __init__(
        self,
        model: Model,
        trained: Trained,
        device: torch.device,
        workers: int,
        precision: Precision,
        cache_gb: float = 2.0,
    ) -> None:
        """Encode nothing yet.

        Args:
            model: The model.
            trained: Its towers that are trained.
            device: Where pixels are moved to.
            workers: Processes that decode images.
            precision: Of the forward passes.
            cache_gb: Memory for decoded pixels of all tables together, in 10^9 bytes; tables that do not fit in what
                the ones before left are decoded each time.
        """
        self.model, self.trained, self.device, self.precision = model, trained, device, precision
        self.workers = workers
        self._free_gb = cache_gb
        self._pixels: dict[tuple[str, TransformName], Pixels] = {}
        self._images: dict[tuple[str, TransformName], Encoded] = {}
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._classes: dict[str, NDArray[np.float32]] = {}

    def renew(self) -> None:
        """Forget what the trained towers gave: their weights have changed."""
        if self.trained != "text":
            self._images.clear()
        if self.trained != "image":
            self._texts.clear()
            self._classes.clear()

    def images(self, table: Table, transform: TransformName) -> Encoded:
        """The vectors of a table's images."""
        key = (table.images_fingerprint, transform)
        if key not in self._images:
            self._images[key] = self._encode_images(table, transform)
        return self._images[key]

    def captions(self, captions: Sequence[str], name: str = "") -> NDArray[np.float32]:
        """The vectors of captions, of equal ones once."""
        if new := list(dict.fromkeys(caption for caption in captions if caption not in self._texts)):
            self._texts.update(zip(new, self._encode_captions(new), strict=True))
        return np.stack([self._texts[caption] for caption in captions])

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each class name."""
        key = repr((list(names.values()), list(templates)))
        if key not in self._classes:
            self._classes[key] = class_embeddings(self.model, list(names.values()), templates, precision=self.precision)
        return self._classes[key]

    def _encode_images(self, table: Table, transform: TransformName, batch_size: int = 256) -> Encoded:
        prepared = self.model.transform(transform)
        key = (table.images_fingerprint, transform)
        if key not in self._pixels:
            # A locked tower sees its images once.
            cache_gb = 0.0 if self.trained == "text" else self._free_gb
            self._pixels[key] = Pixels(table, prepared, workers=self.workers, cache_gb=cache_gb)
            if self._pixels[key].cached:
                self._free_gb -= len(table) * 3 * prepared.prepared_size**2 / 1e9
        pixels = self._pixels[key]
        rows = range(len(table))
        kept: list[int] = []
        shards = []
        for batch, readable in pixels.batches(rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
            if readable:
                shards.append(encode_pixels(self.model, prepared.finish(batch.to(self.device)), self.precision))
                kept += readable
        if not shards:
            raise DataError(f"{table.name}: none of its images can be read.")
        return Encoded(shards, np.array(kept, np.int64))

    def _encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self.model.encode(captions, kind="text", batch_size=256)


class AdaptedEncoder(LiveEncoder):
    """Of a model whose image embeddings are multiplied by a matrix that is being trained: each image is encoded once.

    Attributes:
        matrix: float32 of shape (D, D); None is the identity.
    """

    def __init__(self, model: Model, device: torch.device, workers: int, precision: Precision) -> None:
        """Encode nothing yet; see `LiveEncoder`."""
        super().__init__(model, "image", device, workers, precision, cache_gb=0.0)
        self.matrix: torch.Tensor | None = None
        self._base: dict[tuple[str, TransformName], Encoded] = {}

    def _encode_images(self, table: Table, transform: TransformName, batch_size: int = 256) -> Encoded:
        key = (table.images_fingerprint, transform)
        if key not in self._base:
            self._base[key] = super()._encode_images(table, transform, batch_size)
        base, matrix = self._base[key], self.matrix
        if matrix is None:
            return base
        shards = [F.normalize(torch.from_numpy(np.asarray(shard)).float() @ matrix, dim=-1) for shard in base.shards]
        return Encoded([shard.numpy() for shard in shards], base.rows)
