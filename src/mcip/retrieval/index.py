"""An index that is open for searching, by picture, by text, by both, and by what to get away from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip import models
from mcip.core.errors import ConfigError, ModelError
from mcip.retrieval.ann.cache import derived_folder
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.ann.engine import Engine, open_engine
from mcip.retrieval.ann.phrases import phrases
from mcip.retrieval.ann.probe_texts import sample_captions
from mcip.retrieval.ann.select import Ann
from mcip.retrieval.encoder import Encoder
from mcip.retrieval.fusion import Part, weighted
from mcip.retrieval.query import ID, ImageLike, is_image, listed, load_image
from mcip.retrieval.results import Hit, Rerank, Results, reranked
from mcip.retrieval.single import file_of, row_of, thumbnail_of, vector_of
from mcip.retrieval.snapshot import Opened
from mcip.retrieval.table import open_table

# Hits that a re-ranking function gets, where fewer are asked for.
_RERANKED: Final = 100
# The weight of what to get away from.
NEGATIVE_WEIGHT: Final = 0.5


class Index:
    """An index, opened.

    It may be used by several threads. The model is loaded when a picture or a text is first embedded.

    Attributes:
        uri: Of the table.
        encoder: The index's model.
    """

    def __init__(
        self,
        uri: str | Path,
        model: str | Path | models.Model | None = None,
        device: str = "auto",
        ann: Ann | None = None,
        target: float = 0.95,
        measure: bool = False,
        texts: Callable[[], NDArray[np.float32]] | None = None,
    ) -> None:
        """Open the newest version of an index; see `open_index`.

        Args:
            uri: Of the table.
            model: Its model, or what `mcip.load` takes; the one that the index names if not given.
            device: Of the model.
            ann: How to search, see `mcip.retrieval.ann.select`; as last time if not given.
            target: Recall@10 that approximate search must reach.
            measure: Measure recall anew.
            texts: Makes embeddings of sample texts, (T, D); those of captions of the table, or of phrases, by the
                model if not given.
        """
        self.uri = str(uri)
        table = open_table(self.uri)
        self._identity = table.identity
        self.encoder = Encoder(self.uri, table.identity, model, device)
        self._texts = texts or self._sample_texts
        self._opened = Opened(open_engine(table, self.folder, self._texts, asked=ann, target=target, measure=measure))

    def __len__(self) -> int:
        return len(self._opened.engine)

    @property
    def folder(self) -> Path:
        """Where the files derived from the table lie."""
        return derived_folder(self.uri)

    @property
    def engine(self) -> Engine:
        """The vectors, and how they are searched."""
        return self._opened.engine

    @property
    def columns(self) -> list[str]:
        """The columns that a filter may use."""
        return self._opened.engine.table.shown

    @property
    def model_name(self) -> str:
        """The name that the index's model was loaded by."""
        return self._identity.model

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the index's model."""
        return self._identity.fingerprint

    @property
    def model(self) -> models.Model:
        """The index's model; see `mcip.retrieval.encoder`."""
        return self.encoder.model

    def refresh(self) -> bool:
        """Go over to the table's newest version; whether there was a newer one."""
        table = open_table(self.uri)
        if table.identity.fingerprint != self.fingerprint:
            raise ModelError(f"{self.uri} was made anew with another model, {table.identity.model}: open it again.")
        if table.version_key == self._opened.engine.table.version_key:
            return False
        self._opened = Opened(open_engine(table, self.folder, self._texts))
        return True

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embed pictures with the index's model and transform; float32 (n, D) of unit length."""
        return self.encoder.images(images)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the index's model; float32 (n, D) of unit length."""
        return self.encoder.texts(texts)

    def search(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        negative: ImageLike | Sequence[ImageLike] | None = None,
        weights: Sequence[float] | None = None,
        where: str | None = None,
        k: int = 10,
        offset: int = 0,
        rerank: Rerank | None = None,
        exact: bool = False,
    ) -> Results:
        """Find pictures.

        Args:
            image: Pictures like which to look: files, URIs, PIL images, or "id:" and an id of the index.
            text: What the pictures shall show.
            negative: What to get away from. Texts, unless they name an image file or an id, and pictures.
            weights: One for each picture, then one for each text.
            where: An SQL condition over the index's columns, such as "year > 2015 AND label = 'mug'".
            k: Pictures to find.
            offset: Leave out this many of the best ones, for a next page.
            rerank: Gives the best `max(100, offset + k)` hits new scores.
            exact: Compare with every picture, whatever the table's size.

        Returns:
            At most k pictures, by falling score. The pictures that were asked with are found too, where they are in
            the index.

        Raises:
            ConfigError: There is nothing to look for, or a parameter is out of range.
            UnreadableImage: A picture cannot be read.
            DataError: There is no such id.
        """
        parts = self.parts(image, text, negative, weights)
        return self.search_parts(parts, k, offset, where, rerank, exact)

    def parts(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        negative: ImageLike | Sequence[ImageLike] | None = None,
        weights: Sequence[float] | None = None,
    ) -> list[Part]:
        """Embed the parts of a query; see `search`."""
        images, texts, negatives = listed(image), [str(one) for one in listed(text)], listed(negative)
        away = [one for one in negatives if is_image(one)]
        not_said = [str(one) for one in negatives if not is_image(one)]
        pictures = self._vectors([*images, *away])
        words = self.encode_texts([*texts, *not_said]) if texts or not_said else np.empty((0, 0), np.float32)
        kinds: list[tuple[NDArray[np.float32], Kind]] = [(vector, "image") for vector in pictures[len(images) :]]
        kinds += [(vector, "text") for vector in words[len(texts) :]]
        return weighted(pictures[: len(images)], list(words[: len(texts)]), kinds, weights, NEGATIVE_WEIGHT)

    def search_parts(
        self,
        parts: Sequence[Part],
        k: int = 10,
        offset: int = 0,
        where: str | None = None,
        rerank: Rerank | None = None,
        exact: bool = False,
    ) -> Results:
        """Find pictures by a query that is embedded already; see `search`."""
        _check_range(k, offset)
        opened = self._opened
        among = opened.matching(where)
        wanted = max(k + offset, _RERANKED) if rerank else k + offset
        asked = [part for part in parts if part.weight]
        if len(asked) == 1:
            scores, slots = opened.engine.search(asked[0].vector, asked[0].kind, wanted, among, exact)
        else:
            query, constant = opened.engine.background.combine(asked)
            length = max(float(np.linalg.norm(query)), 1e-12)
            scores, slots = opened.engine.search(query / np.float32(length), "mixed", wanted, among, exact)
            scores = scores * np.float32(length) + np.float32(constant)
        hits = opened.hits(slots, scores)
        if rerank:
            hits = reranked(hits, rerank)
        return Results(tuple(hits[offset : offset + k]))

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        kind: Kind,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
    ) -> list[Results]:
        """Find pictures for each of some vectors; no model is needed.

        Args:
            vectors: float32 (Q, D) of unit length.
            kind: Whether they are embeddings of pictures or of texts.
            k: Pictures to find.
            where: See `search`.
            exact: See `search`.
        """
        _check_range(k, 0)
        opened = self._opened
        queries = np.ascontiguousarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != opened.engine.state.dim:
            raise ConfigError(
                f"The vectors have shape {queries.shape}, but those of {self.uri} have {opened.engine.state.dim} "
                "dimensions."
            )
        found = opened.engine.search_many(queries, kind, k, opened.matching(where), exact)
        return [Results(tuple(opened.hits(slots, scores))) for scores, slots in found]

    def browse(self, k: int = 10, offset: int = 0, where: str | None = None) -> Results:
        """The pictures as they were indexed, one after the other, with the score 0; see `search`."""
        _check_range(k, offset)
        opened = self._opened
        among = opened.matching(where)
        left = opened.engine.alive if among is None else among
        every = np.arange(len(opened.engine.row_ids)) if left is None else left.slots
        shown = every[offset : offset + k]
        return Results(tuple(opened.hits(shown, np.zeros(len(shown), np.float32))))

    def similar(self, id: str, k: int = 10, where: str | None = None) -> Results:
        """Find pictures like one of the index, without that one itself.

        Raises:
            DataError: There is no such id.
        """
        found = self.search_parts([Part(self.vector(id), "image")], k + 1, 0, where)
        return Results(tuple(hit for hit in found if hit.id != id)[:k])

    def vector(self, id: str) -> NDArray[np.float32]:
        """The vector of a picture of the index, float32 (D,).

        Raises:
            DataError: There is no such id.
        """
        return vector_of(self.engine.table, id)

    def row(self, id: str) -> dict[str, Any]:
        """What the index knows of a picture, but for its vector and thumbnail.

        Raises:
            DataError: There is no such id.
        """
        return row_of(self.engine.table, id, self.columns)

    def picture(self, id: str) -> tuple[bytes, str]:
        """The file of a picture of the index and its media type.

        Raises:
            DataError: There is no such id.
            UnreadableImage: The file is gone, or is not the one that was indexed.
        """
        return file_of(self.engine.table, id)

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG thumbnail of a picture of the index; None where the index has none.

        Raises:
            DataError: There is no such id.
        """
        return thumbnail_of(self.engine.table, id)

    def hits(self, slots: Sequence[int]) -> list[Hit]:
        """The pictures in some slots of `engine`, as hits with the score 0."""
        return self._opened.hits(np.asarray(slots, np.int64), np.zeros(len(slots), np.float32))

    def _vectors(self, pictures: Sequence[ImageLike]) -> list[NDArray[np.float32]]:
        """The vectors of pictures: stored ones for ids, the model's for others, those in one batch."""
        by_id = {at: one[len(ID) :] for at, one in enumerate(pictures) if isinstance(one, str) and one.startswith(ID)}
        others = [at for at in range(len(pictures)) if at not in by_id]
        found = {at: self.vector(name) for at, name in by_id.items()}
        if others:
            embedded = self.encode_images([load_image(pictures[at]) for at in others])
            found |= dict(zip(others, embedded, strict=True))
        return [found[at] for at in range(len(pictures))]

    def _sample_texts(self) -> NDArray[np.float32]:
        """Embeddings of captions of the table, or of phrases where it has none; (T, D)."""
        return self.encode_texts(sample_captions(open_table(self.uri)) or phrases())


def open_index(
    db: str | Path,
    model: str | Path | models.Model | None = None,
    device: str = "auto",
) -> Index:
    """Open an index for searching.

    Files that make searching quick are brought up to date beside the table where they are not.

    Args:
        db: What `mcip index` made: a folder, or a URI of object storage.
        model: The index's model, or what `mcip.load` takes; the one that the index names if not given. It is loaded at
            first use, and refused if its weights are not those that the index was made with.
        device: Of the model: "auto", "cpu", "cuda", "cuda:1", ...

    Raises:
        ArtefactError: There is no index.
        ModelError: The model is another one.
    """
    return Index(db, model, device)


def _check_range(k: int, offset: int) -> None:
    if k < 1 or offset < 0:
        raise ConfigError(f"k is {k} and offset {offset}: k must be at least 1, offset at least 0.")
