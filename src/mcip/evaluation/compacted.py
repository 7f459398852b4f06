"""An encoder whose gallery is stored in fewer bytes, as an index would store it, while queries are not rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcip.core.choices import TransformName
from mcip.data import Table
from mcip.embeddings.compact import SAMPLED, Codec, Compact
from mcip.evaluation.encoders import Encoded, Encoder


@dataclass(frozen=True)
class CompactEncoder:
    """What another encoder gives, stored and read again by a codec.

    Attributes:
        encoder: Gives the embeddings.
        codec: Fitted to the gallery of the task.
        texts_stored: Whether captions are the gallery (image to text); else they are queries.
    """

    encoder: Encoder
    codec: Codec
    texts_stored: bool = False

    def images(self, table: Table, transform: TransformName) -> Encoded:
        """The vectors of a table's images, as a gallery and as queries."""
        encoded = self.encoder.images(table, transform)
        gallery = _Changed(encoded.shards, self.codec.stored)
        return Encoded(gallery, encoded.rows, _Changed(encoded.shards, self.codec.project))

    def captions(self, captions: Sequence[str], name: str) -> NDArray[np.float32]:
        """The vectors of captions."""
        vectors = self.encoder.captions(captions, name)
        return self.codec.stored(vectors) if self.texts_stored else self.codec.project(vectors)

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each class name: they are queries, images the gallery."""
        return self.codec.project(self.encoder.classes(names, templates))


class _Changed(Sequence[NDArray[Any]]):
    """Arrays that are changed when they are looked at, one at a time: a gallery may be larger than memory."""

    def __init__(self, arrays: Sequence[NDArray[Any]], change: Callable[[NDArray[Any]], NDArray[np.float32]]) -> None:
        self._arrays, self._change = arrays, change

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, at: Any) -> Any:
        return self._change(self._arrays[at])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return map(self._change, self._arrays)


def fit_images(compact: Compact, images: Sequence[Sequence[NDArray[Any]]]) -> Codec:
    """A codec fitted to the images of a gallery, some of each shard; `images` are the shards of each table."""
    shards = [shard for one in images for shard in one if len(shard)]
    every = max(1, sum(map(len, shards)) // SAMPLED)
    return Codec.fit(compact, np.concatenate([np.asarray(shard[::every], np.float32) for shard in shards]))
