"""An index that is open for searching: by image, by text, by both, and by what results shall not be like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcip import models
from mcip.core.choices import Backend, Fusion
from mcip.core.errors import ArtefactError, ModelError
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.opening import EmbedTexts, open_engine
from mcip.retrieval.ann.select import Ann
from mcip.retrieval.codec import KEY as CODEC
from mcip.retrieval.encoder import Encoder, ModelLike
from mcip.retrieval.fusion import Part
from mcip.retrieval.query import NEGATIVE_WEIGHT as NEGATIVE_WEIGHT
from mcip.retrieval.query import ImageLike, embed_parts, load_image
from mcip.retrieval.results import Rerank, Results
from mcip.retrieval.snapshot import Snapshot
from mcip.retrieval.table import open_table


class Index:
    """An opened index.

    It may be used by several threads. The model is loaded when an image or a text is first embedded. Every method
    answers from one version of the index; `snapshot` gives several answers from the same one.

    Example:
        >>> index = mcip.open_index("photos.lance")  # doctest: +SKIP
        >>> index.search(text="a red mug", where="width >= 640", k=3)  # doctest: +SKIP

    Attributes:
        uri: Of the table.
        encoder: The index's model.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        model: ModelLike | None = None,
        device: str = "auto",
        ann: Ann | None = None,
        target: float | None = None,
        recalibrate: bool = False,
        probe_texts: EmbedTexts | None = None,
        verify: bool = False,
        backend: Backend = "auto",
    ) -> None:
        """Open the newest version of an index; see `open_index`.

        Args:
            uri: Of the table.
            model: Its model, or what `mcip.load` takes; the one that the index names if not given.
            device: Of the model.
            ann: How to search, see `mcip.retrieval.ann.select`; as last time if not given.
            target: Recall@10 that approximate search must reach; as last time if not given, at first 0.95.
            recalibrate: Calibrate approximate search again.
            probe_texts: Embeds the texts by which search and scores are calibrated, float32 (T, D); the index's model
                does if not given.
            verify: See `open_index`.
            backend: See `open_index`.
        """
        self.uri = os.fspath(uri)
        table = open_table(self.uri)
        self._identity = table.identity
        self.encoder = Encoder(self.uri, table.identity, model, device, backend, table.codec)
        self._embed_texts = probe_texts or self.encode_texts
        engine = open_engine(
            table, self._embed_texts, requested=ann, target=target, recalibrate=recalibrate, every_byte=verify
        )
        self._snapshot = Snapshot(engine, self._embed_texts)

    def __len__(self) -> int:
        return len(self._snapshot)

    def snapshot(self) -> Snapshot:
        """The version of the index that is open now. It stays as it is when `refresh` opens a newer one.

        Example:
            >>> snapshot = index.snapshot()
            >>> results = snapshot.search_parts(index.parts(text="a red mug"))
            >>> snapshot.row(results[0].id), snapshot.version
        """
        return self._snapshot

    @property
    def folder(self) -> Path:
        """Where the files derived from the table lie."""
        return self.engine.folder

    @property
    def engine(self) -> Engine:
        """The vectors, and how they are searched."""
        return self._snapshot.engine

    @property
    def columns(self) -> list[str]:
        """The columns that a filter may use."""
        return self._snapshot.columns

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
        """Open the table's newest version; whether there was a newer one."""
        table = open_table(self.uri)
        if table.identity.fingerprint != self.fingerprint:
            raise ModelError(f"{self.uri} was made anew with another model, {table.identity.model}: open it again.")
        if table.schema.metadata.get(CODEC) != self.engine.table.schema.metadata.get(CODEC):
            raise ArtefactError(f"{self.uri} was made anew with --embedding {table.identity.embedding}: open it again.")
        if table.version_key == self.engine.table.version_key:
            return False
        self._snapshot = Snapshot(open_engine(table, self._embed_texts), self._embed_texts)
        return True

    def encode_images(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Embed images with the index's model and transform; float32 (n, D) of unit length."""
        return self.encoder.images([load_image(image) for image in images])

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
        collapse: float | None = None,
        min_score: float | str | None = None,
        fusion: Fusion = "sum",
    ) -> Results:
        """Find images.

        Args:
            image: Query images: files, URIs, PIL images, or "id:" and an id of the index.
            text: Query texts: what the images shall show.
            negative: What results shall not be like: images, and texts unless they name an image file or an id.
            weights: One for each image, then one for each text.
            where: A filter over the index's columns, such as "year > 2015 AND label = 'mug'".
            k: Images to return.
            offset: Leave out this many of the best ones, for a next page.
            rerank: Gives the best `max(100, offset + k)` hits new scores.
            exact: Compare with every image, whatever the table's size.
            collapse: Let one result stand for all within this cosine of it: its `others`. Not together with `rerank`.
            min_score: The least score of results: "1/1000" is what one in a thousand unrelated queries reaches, a
                number is a score; see `mcip.retrieval.score_calibration`.
            fusion: How several parts become one score: "sum" (`mcip.retrieval.fusion`), or "product" or "basic",
                which want both images and texts to fit (`mcip.retrieval.fused`).

        Returns:
            At most k images, in descending order of score; equal scores in the order in which they were indexed. The
            query images are among them where they are in the index. Unless hits are re-ranked, the first results are
            the same for every k, and pages fit together.

        Raises:
            ConfigError: There is nothing to look for, or a parameter is out of range.
            UnreadableImage: An image cannot be read.
            DataError: There is no such id.

        Example:
            >>> index = mcip.open_index("photos.lance")
            >>> index.search(image="mug.jpg", text="in red", where="width > 50", k=5)
        """
        snapshot = self._snapshot
        parts = embed_parts(self.encoder, snapshot.vector, image, text, negative, weights)
        return snapshot.search_parts(parts, k, offset, where, rerank, exact, collapse, min_score, fusion)

    def parts(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        text: str | Sequence[str] | None = None,
        negative: ImageLike | Sequence[ImageLike] | None = None,
        weights: Sequence[float] | None = None,
    ) -> list[Part]:
        """Embed the parts of a query, for `Snapshot.search_parts`; see `search`."""
        return embed_parts(self.encoder, self._snapshot.vector, image, text, negative, weights)

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        kind: Kind,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
    ) -> list[Results]:
        """Find images for each of some vectors; no model is needed.

        Args:
            vectors: float32 (Q, D) of unit length.
            kind: Whether they are embeddings of images or of texts.
            k: Images to return.
            where: See `search`.
            exact: See `search`.
        """
        return self._snapshot.search_vectors(vectors, kind, k, where, exact)

    def browse(self, k: int = 10, offset: int = 0, where: str | None = None, collapse: float | None = None) -> Results:
        """The images in the order in which they were indexed, with the score 0; see `search`."""
        return self._snapshot.browse(k, offset, where, collapse)

    def similar(
        self, id: str, k: int = 10, where: str | None = None, offset: int = 0, min_score: float | str | None = None
    ) -> Results:
        """Find images like one of the index, without that one itself; see `search`.

        Raises:
            DataError: There is no such id.
        """
        return self._snapshot.similar(id, k, where, offset, min_score)

    def vector(self, id: str) -> NDArray[np.float32]:
        """The vector of an image of the index; see `Snapshot.vector`."""
        return self._snapshot.vector(id)

    def row(self, id: str) -> dict[str, Any]:
        """What the index knows of an image; see `Snapshot.row`."""
        return self._snapshot.row(id)

    def image_file(self, id: str) -> tuple[bytes, str]:
        """The file of an image of the index and its media type; see `Snapshot.image_file`."""
        return self._snapshot.image_file(id)

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG thumbnail of an image of the index; see `Snapshot.thumbnail`."""
        return self._snapshot.thumbnail(id)


def open_index(
    db: str | os.PathLike[str],
    model: ModelLike | None = None,
    device: str = "auto",
    *,
    verify: bool = False,
    backend: Backend = "auto",
) -> Index:
    """Open an index for searching.

    Files that make searching quick are brought up to date where they are not: beside the table, or in the user's cache
    where that cannot be written to. Damaged ones are built again. All of them are compared with their checksums, but
    vectors and graphs above 256 MB (170,000 images x 768) only if `verify` is set.

    Args:
        db: What `mcip index` made: a folder, or a URI of object storage.
        model: The index's model, or what `mcip.load` takes; the one that the index names if not given. It is loaded at
            first use, and refused if its weights are not those that the index was made with.
        device: Of the model: "auto", "cpu", "cuda", "cuda:1", ...
        verify: Check large files byte by byte too: about 0.3 s per GB, and the time to read them from the disk.
        backend: What embeds queries: "onnx", which does not import PyTorch, "torch", or "auto": the first where there
            is an ONNX model of the same weights, see `mcip.retrieval.encoder`.

    Raises:
        ArtefactError: There is no index.
        ModelError: The model is another one.

    Example:
        >>> index = mcip.open_index("photos.lance")
        >>> len(index)
        >>> index.search(text="a red mug", k=3).to_pandas()
    """
    return Index(db, model, device, verify=verify, backend=backend)
