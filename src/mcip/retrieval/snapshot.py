"""One version of an index, opened: whatever it answers is of this version."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.choices import Fusion
from mcip.core.errors import ConfigError, DataError, UnreadableImage
from mcip.data import decode
from mcip.data.images import media_type
from mcip.data.thumbnails import thumbnail
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.ann.exact import Ranked
from mcip.retrieval.ann.opening import EmbedTexts
from mcip.retrieval.ann.subset import RowSubset
from mcip.retrieval.collapse import collapsed
from mcip.retrieval.facets import Facets, facets_of
from mcip.retrieval.fused import FusedQuery
from mcip.retrieval.fusion import Part
from mcip.retrieval.fusions import Fusions
from mcip.retrieval.ranking import Query, rank
from mcip.retrieval.reading import content_hash, read_image
from mcip.retrieval.results import Hit, Rerank, Results, reranked
from mcip.retrieval.shown_rows import ShownRows
from mcip.retrieval.table import quoted

# Filters whose rows are remembered.
_FILTERS: Final = 32
# Hits that a re-ranking function gets, where fewer are requested.
_RERANKED: Final = 100
# Pixels of the thumbnails that are made of images of an index without thumbnails.
_THUMBNAIL: Final = 160


class Snapshot:
    """One version of an index. It never changes, and may be used by several threads.

    Attributes:
        engine: The vectors, and how they are searched.
    """

    def __init__(self, engine: Engine, embed_texts: EmbedTexts) -> None:
        """Hold what results show in memory, where that is little enough.

        Args:
            engine: The vectors, and how they are searched.
            embed_texts: Embeds texts by the index's model.
        """
        self.engine = engine
        self._fusions = Fusions(engine, embed_texts)
        self._rows = ShownRows(engine.table, engine.row_ids)
        self.subset: Callable[[str | None], RowSubset | None] = lru_cache(_FILTERS)(self._subset)

    def __len__(self) -> int:
        return len(self.engine)

    @property
    def version(self) -> int:
        """The version's number."""
        return self.engine.table.version

    @property
    def columns(self) -> list[str]:
        """The columns that a filter may use."""
        return self.engine.table.shown

    def prepare(self) -> None:
        """Measure now what the first query by another fusion than the sum would wait for."""
        self._fusions.prepare()

    @cached_property
    def facets(self) -> Facets:
        """What the columns hold, counted once; see `mcip.retrieval.facets`."""
        return facets_of(self.engine.table.schema, self.columns, self._rows.column)

    def search_parts(
        self,
        parts: Sequence[Part],
        k: int = 10,
        offset: int = 0,
        where: str | None = None,
        rerank: Rerank | None = None,
        exact: bool = False,
        collapse: float | None = None,
        min_score: float | str | None = None,
        fusion: Fusion = "sum",
    ) -> Results:
        """Find images by a query that is embedded already; see `mcip.retrieval.index.Index.search`."""
        _check_range(k, offset)
        parts = [part for part in parts if part.weight]
        query = self._fusions.query(parts, fusion)
        kind = query.kind if isinstance(query, Part) else "mixed"
        calibration = self._fusions.calibration(fusion if isinstance(query, FusedQuery) else "sum")
        least = -math.inf if min_score is None else calibration.least(min_score, kind)
        line = calibration.line(kind)
        ranking = partial(self._ranked, query, self.subset(where), exact, least)
        if collapse is not None:
            if rerank:
                raise ConfigError("Results are either re-ranked or collapsed: leave one of them out.")
            return self._collapsed(ranking, collapse, k, offset, line)
        scores, slots = ranking(max(k + offset, _RERANKED) if rerank else k + offset)
        if rerank:
            return self._results(reranked(self.hits(slots, scores), rerank)[offset : offset + k])
        return self._results(self.hits(slots[offset:], scores[offset:]), line)

    def _ranked(self, query: Query, subset: RowSubset | None, exact: bool, least: float, count: int) -> Ranked:
        """The best scores and slots of a query, from a score on."""
        scores, slots = rank(self.engine, query, count, subset, exact)
        if least == -math.inf:
            return scores, slots
        kept = scores >= least
        return scores[kept], slots[kept]

    def _collapsed(
        self, ranking: Callable[[int], Ranked], threshold: float, k: int, offset: int, line: float | None = None
    ) -> Results:
        (scores, slots), groups = collapsed(ranking, self.engine.take, threshold, k + offset)
        page = groups[offset:]
        ranks = np.concatenate([[group.rank, *group.others] for group in page] or [[]]).astype(np.int64)
        hits = iter(self.hits(slots[ranks], scores[ranks]))
        shown = [replace(next(hits), others=tuple(islice(hits, len(group.others)))) for group in page]
        return self._results(shown, line)

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        kind: Kind,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
    ) -> list[Results]:
        """Find images for each of some vectors; see `mcip.retrieval.index.Index.search_vectors`."""
        _check_range(k, 0)
        queries, codec = np.ascontiguousarray(vectors, np.float32), self.engine.table.codec
        if codec is not None and queries.ndim == 2 and queries.shape[1] == codec.source_dim:
            queries = codec.project(queries)
        if queries.ndim != 2 or queries.shape[1] != self.engine.state.dim:
            raise ConfigError(
                f"The vectors have shape {queries.shape}, but those of {self.engine.table.uri} have "
                f"{self.engine.state.dim} dimensions."
            )
        ranked = self.engine.search_many(queries, kind, k, self.subset(where), exact)
        line = self.engine.calibration.line(kind)
        return [self._results(self.hits(slots, scores), line) for scores, slots in ranked]

    def browse(self, k: int = 10, offset: int = 0, where: str | None = None, collapse: float | None = None) -> Results:
        """The images in the order in which they were indexed, with the score 0."""
        _check_range(k, offset)
        subset = self.subset(where) or self.engine.alive
        slots = np.arange(len(self.engine.row_ids)) if subset is None else subset.slots
        scores = np.zeros(len(slots), np.float32)
        if collapse is not None:
            return self._collapsed(lambda count: (scores[:count], slots[:count]), collapse, k, offset)
        page = slots[offset : offset + k]
        return self._results(self.hits(page, scores[: len(page)]))

    def similar(
        self, id: str, k: int = 10, where: str | None = None, offset: int = 0, min_score: float | str | None = None
    ) -> Results:
        """Find images like one of the index, without that one itself; see `mcip.retrieval.index.Index.search`.

        Raises:
            DataError: There is no such id.
        """
        _check_range(k, offset)
        results = self.search_parts([Part(self.vector(id), "image")], k + offset + 1, 0, where, min_score=min_score)
        others = [hit for hit in results if hit.id != id]
        return self._results(others[offset : offset + k], results.line)

    def vector(self, id: str) -> NDArray[np.float32]:
        """The vector of an image of the index, float32 (D,) of unit length.

        Raises:
            DataError: There is no such id.
        """
        slot = self._slot(id)
        if slot is None:
            vector: NDArray[np.float32] = np.asarray(self._row(id, ["vector"])["vector"], np.float32)
        else:
            vector = self.engine.take(np.array([slot]))[0]
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def row(self, id: str) -> dict[str, Any]:
        """What the index knows of an image, but for its vector and thumbnail.

        Raises:
            DataError: There is no such id.
        """
        return self._row(id, self.columns)

    def image_file(self, id: str) -> tuple[bytes, str]:
        """The file of an image of the index and its media type.

        Raises:
            DataError: There is no such id.
            UnreadableImage: The file is gone, or is not the one that was indexed.
        """
        row = self._row(id, ["path", "hash"])
        content = read_image(row["path"])
        if content_hash(content) != row["hash"]:
            raise UnreadableImage(f"{row['path']} has changed since it was indexed: run `mcip index` again.")
        return content, media_type(content)

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG thumbnail of an image of the index; None where the index has none.

        Raises:
            DataError: There is no such id.
        """
        column = "thumbnail" if "thumbnail" in self.engine.table.schema.names else "id"
        return self._row(id, [column]).get("thumbnail")

    def small_image(self, id: str) -> bytes:
        """The JPEG thumbnail of an image of the index, made of its file where the index has none.

        Raises:
            DataError: There is no such id.
            UnreadableImage: The file is gone, or is not the one that was indexed.
        """
        return self.thumbnail(id) or thumbnail(decode(self.image_file(id)[0]), _THUMBNAIL)

    def hits(self, slots: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """The rows in these slots, with these scores."""
        return self._rows.hits(slots, scores)

    def _results(self, hits: Sequence[Hit], line: float | None = None) -> Results:
        return Results(tuple(hits), self.version, line, self.small_image)

    def _subset(self, where: str | None) -> RowSubset | None:
        if where is None or not where.strip():
            return None
        return self.engine.subset_of(where, self.columns)

    def _slot(self, id: str) -> int | None:
        """The slot of an image whose vector is in memory; None where it has to be looked up in the table."""
        slots = None if self.engine.vectors is None or not _is_utf8(id) else self._rows.slots(id)
        if slots is None or len(slots) == 0:
            return None
        alive = self.engine.alive
        return int((slots if alive is None else slots[alive.mask[slots]])[0])

    def _row(self, id: str, columns: Sequence[str]) -> dict[str, Any]:
        table = self.engine.table
        rows: list[dict[str, Any]] = []
        if _is_utf8(id):
            rows = table.read(columns, f"id = {quoted(id)}").select(columns).slice(0, 1).to_pylist()
        if not rows:
            raise DataError(f"{table.uri} holds no image with the id {id!r}.")
        return rows[0]


def _is_utf8(id: str) -> bool:
    """Whether a column can hold a text: half of a surrogate pair is in none."""
    try:
        id.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_range(k: int, offset: int) -> None:
    if k < 1 or offset < 0:
        raise ConfigError(f"k is {k} and offset {offset}: k must be at least 1, offset at least 0.")
