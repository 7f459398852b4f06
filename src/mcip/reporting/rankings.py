"""The nearest images of single queries of a task, from the embeddings that a model was evaluated with.

Where the results are of a gallery that is stored in fewer bytes, so are the rankings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.topk import topk
from mcip.data import Table
from mcip.embeddings.compact import Codec, Compact
from mcip.embeddings.store import Embeddings
from mcip.evaluation.benchmarks.base import ComposedRetrieval, CrossModal, Data, Retrieval, TextRetrieval
from mcip.evaluation.compacted import fit_images
from mcip.evaluation.tasks import Task
from mcip.reporting.results import Results
from mcip.reporting.stored import stored_captions, stored_images

Outcome: TypeAlias = Literal["hit", "miss", "itself", "ignored"]


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        text: A caption, or the class of the query image.
        table: The table of the query image; None where the query is a text.
        row: Its row; -1 where the query is a text.
        relevant: What is relevant: a label, or gallery rows.
        ignored: Gallery rows that count as neither hit nor miss.
    """

    text: str
    table: Table | None
    row: int
    relevant: str | frozenset[int]
    ignored: frozenset[int] = frozenset()


@dataclass(frozen=True)
class RankedImage:
    """An image of a ranking: its place in a table, whether it is relevant, and its similarity (cosine)."""

    table: Table
    row: int
    outcome: Outcome
    similarity: float


@dataclass(frozen=True)
class Space:
    """A model's vectors of the queries and of the gallery of a task.

    Attributes:
        queries: The queries.
        vectors: Embeddings that hold their vectors.
        rows: The row of each query in `vectors`, shape (Q,).
        tables: The gallery.
        images: Its embeddings, one entry per table.
        subset: The rows of the only table that are in the gallery, where queries are ranked among themselves; None
            where the gallery is all of `tables`.
        codec: How the gallery was stored; None where the vectors were compared as the model gives them.
    """

    queries: Sequence[Query]
    vectors: Embeddings
    rows: NDArray[np.int64]
    tables: Sequence[Table]
    images: Sequence[Embeddings]
    subset: NDArray[np.int64] | None = None
    codec: Codec | None = None

    def nearest(self, query: int, count: int, task: Task) -> list[RankedImage]:
        """The first images of a query's ranking, without what the protocol removes from it."""
        among_queries = task.kind == "i2i" and self.subset is not None
        removed = int(among_queries and (task.exclude_self or task.drop_first))
        vector, blocks = self.vectors.take([int(self.rows[query])]), self._blocks()
        if self.codec is not None:
            vector, codec = self.codec.project(vector), self.codec
            blocks = ((start, codec.stored(block)) for start, block in blocks)
        similarities, indices = topk(vector, blocks, count + removed)
        ranking = [
            self._ranked(self.queries[query], index, similarity)
            for index, similarity in zip(indices[0].tolist(), similarities[0].tolist(), strict=True)
        ]
        if among_queries and task.drop_first:
            ranking = ranking[1:]
        elif among_queries and task.exclude_self:
            ranking = [image for image in ranking if image.outcome != "itself"]
        return ranking[:count]

    def _blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        if self.subset is not None:
            yield 0, self.images[0].take(self.subset)
            return
        start = 0
        for embeddings in self.images:
            for first, block in embeddings.blocks():
                yield start + first, block
            start += len(embeddings)

    def _ranked(self, query: Query, index: int, similarity: float) -> RankedImage:
        if self.subset is not None:
            index = int(self.subset[index])
        number, before = 0, 0
        while index >= len(self.images[number]):
            index -= len(self.images[number])
            before += len(self.tables[number])
            number += 1
        table = self.tables[number]
        row = table.ids.index(self.images[number].ids[index])
        return RankedImage(table, row, _outcome(query, table, row, before + row), similarity)


def space_of(results: Results, task: Task, data: Data) -> Space:
    """The vectors of one model at a task whose queries find images, as they were measured.

    Raises:
        ArtefactError: The embeddings are gone.
    """
    space = _whole_vectors(results, task, data)
    compact = Compact.parse(results.measured[task.name].embedding)
    if not compact.changes:
        return space
    return replace(space, codec=fit_images(compact, [images.shards for images in space.images]))


def _whole_vectors(results: Results, task: Task, data: Data) -> Space:
    if isinstance(data, Retrieval):
        return _image_queries(results, task, data)
    if isinstance(data, CrossModal):
        return _captions(results, task, data)
    if isinstance(data, TextRetrieval):
        queries = [Query(text, None, -1, label) for text, label in zip(data.texts, data.labels, strict=True)]
        vectors = stored_captions(results, data.fingerprint)
        images = [stored_images(results, task, table) for table in data.gallery]
        return Space(queries, vectors, np.arange(len(queries)), data.gallery, images)
    what = "are an image and a text together" if isinstance(data, ComposedRetrieval) else "find classes, not images"
    raise ArtefactError(f"The queries of {task.name} {what}: there is no grid of them.")


def _image_queries(results: Results, task: Task, data: Retrieval) -> Space:
    table, vectors = data.queries, stored_images(results, task, data.queries)
    rows = _rows_of(table, vectors.ids)
    if data.truth is not None:
        queries = [
            Query(image, table, row, frozenset([*truth["easy"], *truth["hard"]]), frozenset(truth["junk"]))
            for image, row, truth in ((table.ids[row], row, data.truth[row]) for row in rows)
        ]
        places = np.arange(len(rows))
    else:
        places = np.array([place for place, row in enumerate(rows) if table.labels[row] is not None], np.int64)
        labels = [table.labels[rows[place]] or "" for place in places]
        queries = [
            Query(label, table, rows[place], label) for label, place in zip(labels, places.tolist(), strict=True)
        ]
    if not data.gallery:
        return Space(queries, vectors, places, [table], [vectors], places)
    return Space(queries, vectors, places, data.gallery, [stored_images(results, task, part) for part in data.gallery])


def _captions(results: Results, task: Task, data: CrossModal) -> Space:
    table, images = data.images, stored_images(results, task, data.images)
    readable = set(_rows_of(table, images.ids))
    queries = [
        Query(caption, None, -1, frozenset([row]))
        for row, captions in enumerate(table.captions)
        if row in readable
        for caption in captions
    ]
    return Space(queries, stored_captions(results, table.fingerprint), np.arange(len(queries)), [table], [images])


def _outcome(query: Query, table: Table, row: int, place: int) -> Outcome:
    """Whether an image, the `place`-th of the gallery's tables, is relevant to a query."""
    if table is query.table and row == query.row:
        return "itself"
    if isinstance(query.relevant, str):
        return "hit" if table.labels[row] == query.relevant else "miss"
    return "hit" if place in query.relevant else "ignored" if place in query.ignored else "miss"


def _rows_of(table: Table, ids: Sequence[str]) -> list[int]:
    row_of = {image: row for row, image in enumerate(table.ids)}
    return [row_of[image] for image in ids]
