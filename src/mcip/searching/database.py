"""An index that is open for searching, by picture, by text, by both, and by what to get away from."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from mcip import models
from mcip.data import decode
from mcip.data.images import IMAGE_SUFFIXES
from mcip.data.transforms import TransformName
from mcip.device import pick_device
from mcip.embed import encode_pixels
from mcip.errors import ConfigError, DataError, ModelError, UnreadableImage
from mcip.searching.choice import Ann
from mcip.searching.derived import derived_folder
from mcip.searching.engine import Chosen, Engine, open_engine
from mcip.searching.fusion import Part, weighted
from mcip.searching.phrases import phrases
from mcip.searching.recall import QUERIES, Kind
from mcip.searching.results import Hit, Rerank, Results
from mcip.searching.sources import read_picture
from mcip.searching.table import HIDDEN, IndexTable, open_table, quoted
from mcip.searching.update import content_hash

# A picture: a file or URI, "id:" and an id of the index, or an image.
Picture: TypeAlias = "str | Path | Image.Image"
_ID: Final = "id:"
# Rows up to which what a result shows is kept in memory rather than read for each query.
_IN_MEMORY: Final = 5_000_000
_RERANKED: Final = 100
_NEGATIVE_WEIGHT: Final = 0.5
_FILTERS: Final = 32


class Database:
    """An index, opened.

    It may be used by several threads. The model is loaded when a picture or a text is first embedded.
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
        """Open the newest version of an index; see `open_database`.

        Args:
            uri: Of the table.
            model: Its model, or what `mcip.load` takes; the one that the index names if not given.
            device: Of the model.
            ann: How to search, see `mcip.searching.choice`; as last time if not given.
            target: Recall@10 that approximate search must reach.
            measure: Measure recall anew.
            texts: Makes embeddings of sample texts, (T, D); captions of the table or phrases, by the model, if not given.
        """
        self.uri = str(uri)
        self._model = model if isinstance(model, models.Model) else None
        self._model_name = None if model is None or isinstance(model, models.Model) else model
        self._device = device
        self._texts = texts or self._sample_texts
        self._lock = threading.Lock()
        table = open_table(self.uri)
        self._identity = table.identity
        if model is not None:
            _ = self.model  # says at once that it is another one
        self._opened = _Opened(open_engine(table, self.folder, self._texts, asked=ann, target=target, measure=measure))

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
        """The model, loaded at first use.

        Raises:
            ModelError: It cannot be loaded, or it is not the one that the index was made with.
        """
        with self._lock:
            if self._model is None:
                self._model = self._load()
            if self._model.fingerprint != self.fingerprint:
                name, self._model = self._model.source, None
                raise ModelError(
                    f"{self.uri} was made with the model {self.model_name}, whose weights are not those of {name}: vectors "
                    "of different models cannot be compared. Search with that model, or make an index with this one."
                )
            return self._model

    def refresh(self) -> bool:
        """Go over to the table's newest version; whether there was a newer one."""
        table = open_table(self.uri)
        if table.identity.fingerprint != self.fingerprint:
            raise ModelError(f"{self.uri} was made anew with another model, {table.identity.model}: open it again.")
        if table.version == self._opened.engine.table.version:
            return False
        self._opened = _Opened(open_engine(table, self.folder, self._texts))
        return True

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embed pictures with the index's model and transform; float32 (n, D) of unit length."""
        name: TransformName = "paper" if self._identity.transform == "paper" else "model"
        transform = self.model.transform(name)
        pixels = torch.stack([transform.prepare(image) for image in images])
        return encode_pixels(self.model, transform.finish(pixels.to(self.model.device)))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the index's model; float32 (n, D) of unit length."""
        vectors: NDArray[np.float32] = self.model.encode_texts(list(texts)).float().cpu().numpy()
        return vectors

    def search(
        self,
        image: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        negative: Picture | Sequence[Picture] | None = None,
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
        image: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        negative: Picture | Sequence[Picture] | None = None,
        weights: Sequence[float] | None = None,
    ) -> list[Part]:
        """Embed the parts of a query; see `search`."""
        images, texts, negatives = _listed(image), [str(one) for one in _listed(text)], _listed(negative)
        away = [one for one in negatives if is_picture(one)]
        not_said = [str(one) for one in negatives if not is_picture(one)]
        pictures = self._vectors([*images, *away])
        words = self.encode_texts([*texts, *not_said]) if texts or not_said else np.empty((0, 0), np.float32)
        kinds: list[tuple[NDArray[np.float32], Kind]] = [(vector, "image") for vector in pictures[len(images) :]]
        kinds += [(vector, "text") for vector in words[len(texts) :]]
        return weighted(pictures[: len(images)], list(words[: len(texts)]), kinds, weights, _NEGATIVE_WEIGHT)

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
            query = opened.engine.background.combine(asked)
            scale = max(float(np.linalg.norm(query)), 1e-12)
            scores, slots = opened.engine.search(query / scale, "text", wanted, among, exact)
            scores = scores * scale
        hits = opened.hits(slots, scores)
        if rerank:
            hits = _reranked(hits, rerank)
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
                f"The vectors have shape {queries.shape}, but those of {self.uri} have {opened.engine.state.dim} dimensions."
            )
        found = opened.engine.search_many(queries, kind, k, opened.matching(where), exact)
        return [Results(tuple(opened.hits(slots, scores))) for scores, slots in found]

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
        vector: NDArray[np.float32] = self._row(id, ["vector"])["vector"]
        vector = np.asarray(vector, np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def row(self, id: str) -> dict[str, Any]:
        """What the index knows of a picture, but for its vector and thumbnail.

        Raises:
            DataError: There is no such id.
        """
        return self._row(id, self.columns)

    def picture(self, id: str) -> tuple[bytes, str]:
        """The file of a picture of the index and its media type.

        Raises:
            DataError: There is no such id.
            UnreadableImage: The file is gone, or is not the one that was indexed.
        """
        row = self._row(id, ["path", "hash"])
        content = read_picture(row["path"])
        if content_hash(content) != row["hash"]:
            raise UnreadableImage(f"{row['path']} has changed since it was indexed: run `mcip index` again.")
        return content, media_type(content)

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG thumbnail of a picture of the index; None where the index has none.

        Raises:
            DataError: There is no such id.
        """
        if "thumbnail" not in self.engine.table.schema.names:
            _ = self._row(id, ["id"])
            return None
        small: bytes | None = self._row(id, ["thumbnail"])["thumbnail"]
        return small

    def _row(self, id: str, columns: Sequence[str]) -> dict[str, Any]:
        found = self.engine.table.read(columns, f"id = {quoted(id)}").select(columns)
        if found.num_rows == 0:
            raise DataError(f"{self.uri} holds no picture with the id {id!r}.")
        row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
        return row

    def _vectors(self, pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
        """The vectors of pictures: stored ones for ids, the model's for others, those in one batch."""
        by_id = {at: one[len(_ID) :] for at, one in enumerate(pictures) if isinstance(one, str) and one.startswith(_ID)}
        others = [at for at in range(len(pictures)) if at not in by_id]
        embedded = self.encode_images([_image(pictures[at]) for at in others]) if others else []
        found = dict(zip(others, embedded, strict=True)) | {at: self.vector(name) for at, name in by_id.items()}
        return [found[at] for at in range(len(pictures))]

    def _load(self) -> models.Model:
        name = self._model_name or self.model_name
        try:
            return models.load(name, device=str(pick_device(self._device)))
        except ModelError as error:
            if self._model_name is not None:
                raise
            raise ModelError(
                f"{self.uri} was made with the model {name}, which cannot be loaded: {error} "
                "Say where it is now with --model."
            ) from error

    def _sample_texts(self) -> NDArray[np.float32]:
        """Embeddings of captions of the table, or of phrases where it has none; (T, D)."""
        return self.encode_texts(sample_captions(open_table(self.uri)) or phrases())


class _Opened:
    """One version of the index, with what a result shows of its rows."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._rows: pa.Table | None = None
        if len(engine) <= _IN_MEMORY:
            rows = engine.table.read(engine.table.shown).sort_by("_rowid").combine_chunks()
            self._position = np.searchsorted(rows["_rowid"].to_numpy().astype(np.int64), engine.row_ids)
            self._rows = rows.drop_columns(["_rowid"])
        self.matching: Callable[[str | None], Chosen | None] = lru_cache(_FILTERS)(self._matching)

    def _matching(self, where: str | None) -> Chosen | None:
        return None if where is None or not where.strip() else self.engine.matching(where)

    def hits(self, slots: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        if self._rows is None:
            rows = self.engine.table.take(self.engine.row_ids[slots], self.engine.table.shown)
        else:
            rows = self._rows.take(pa.array(self._position[slots]))
        columns = {name: rows[name].to_pylist() for name in rows.column_names if name not in HIDDEN}
        own = [columns.pop(name) for name in ("id", "path", "width", "height")]
        metadata = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [
            Hit(id, score, path, width, height, facts)
            for id, path, width, height, facts, score in zip(
                *own, metadata or [{} for _ in slots], scores.tolist(), strict=True
            )
        ]


def open_database(
    db: str | Path,
    model: str | Path | models.Model | None = None,
    device: str = "auto",
) -> Database:
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
    return Database(db, model, device)


def sample_captions(table: IndexTable, count: int = QUERIES) -> list[str]:
    """Captions of the table, spread over its rows; none where it has none."""
    name = next((name for name in ("captions", "caption") if name in table.metadata), None)
    if name is None:
        return []
    row_ids = np.sort(table.read([])["_rowid"].to_numpy().astype(np.int64))
    some = row_ids[np.linspace(0, len(row_ids) - 1, min(len(row_ids), 4 * count)).astype(np.int64)]
    found: dict[str, None] = {}
    for value in table.take(np.unique(some), [name])[name].to_pylist():
        first = value if isinstance(value, str) else next(iter(value or []), None)
        if first:
            found[str(first)] = None
    captions = list(found)
    return captions[:: max(1, len(captions) // count)][:count]


def is_picture(part: Picture) -> bool:
    """Whether a part of a query is a picture: an image, an id of the index, a file or a URI, and not a text."""
    if not isinstance(part, str):
        return True
    return part.startswith(_ID) or Path(part).suffix.lower() in IMAGE_SUFFIXES or ("/" in part and Path(part).is_file())


def media_type(content: bytes) -> str:
    """The media type of a picture's file, by its first bytes."""
    with Image.open(io.BytesIO(content)) as image:
        return Image.MIME.get(image.format or "", "application/octet-stream")


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return decode(read_picture(str(picture)))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | Path | Image.Image) else list(value)


def _check_range(k: int, offset: int) -> None:
    if k < 1 or offset < 0:
        raise ConfigError(f"k is {k} and offset {offset}: k must be at least 1, offset at least 0.")


def _reranked(hits: list[Hit], rerank: Rerank) -> list[Hit]:
    scores = [float(score) for score in rerank(hits)]
    if len(scores) != len(hits):
        raise ConfigError(
            f"The re-ranking function gave {len(scores)} scores for {len(hits)} hits: it must give each one."
        )
    order = sorted(range(len(hits)), key=lambda at: -scores[at])
    return [
        Hit(*(getattr(hits[at], name) if name != "score" else scores[at] for name in Hit.__slots__)) for at in order
    ]
