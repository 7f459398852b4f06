"""The nearest images of chosen queries of a task, from the embeddings that a model was evaluated with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.topk import topk
from mcip.data import Table
from mcip.embeddings.store import Embeddings
from mcip.evaluation.benchmarks.base import CrossModal, Data, Retrieval, TextRetrieval
from mcip.evaluation.tasks import Task
from mcip.reporting.results import Results
from mcip.reporting.thumbnails import stored_captions, stored_images

Outcome: TypeAlias = Literal["hit", "miss", "itself", "ignored"]


@dataclass(frozen=True)
class Asked:
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
class Found:
    """An image of a ranking: its place in a table, whether it is relevant, and its similarity (cosine)."""

    table: Table
    row: int
    outcome: Outcome
    similarity: float


@dataclass(frozen=True)
class Space:
    """A model's vectors of the queries and of the gallery of a task.

    Attributes:
        asked: The queries.
        vectors: Where their vectors are.
        rows: The row of each query in `vectors`.
        tables: The gallery.
        images: Its vectors, an entry a table.
        kept: Per table, which of the vectors are in the gallery; all of them for None.
    """

    asked: Sequence[Asked]
    vectors: Embeddings
    rows: NDArray[np.int64]
    tables: Sequence[Table]
    images: Sequence[Embeddings]
    kept: NDArray[np.int64] | None = None

    def nearest(self, query: int, count: int, task: Task) -> list[Found]:
        """The images that a query finds first, without what the protocol removes from its ranking."""
        asked = self.asked[query]
        own = task.kind == "i2i" and self.kept is not None
        removes = own and (task.exclude_self or task.drop_first)
        similarities, indices = topk(self.vectors.take([int(self.rows[query])]), self._blocks(), count + removes)
        found = [self._found(asked, *pair) for pair in zip(indices[0].tolist(), similarities[0].tolist(), strict=True)]
        if own and task.drop_first:
            found = found[1:]
        elif own and task.exclude_self:
            found = [one for one in found if one.outcome != "itself"]
        return found[:count]

    def _blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        if self.kept is not None:
            yield 0, self.images[0].take(self.kept)
            return
        start = 0
        for embeddings in self.images:
            for first, block in embeddings.blocks():
                yield start + first, block
            start += len(embeddings)

    def _found(self, asked: Asked, index: int, similarity: float) -> Found:
        if self.kept is not None:
            index = int(self.kept[index])
        number, before = 0, 0
        while index >= len(self.images[number]):
            index -= len(self.images[number])
            before += len(self.tables[number])
            number += 1
        table = self.tables[number]
        row = table.ids.index(self.images[number].ids[index])
        return Found(table, row, _outcome(asked, table, row, before + row), similarity)


def space_of(results: Results, task: Task, data: Data) -> Space:
    """The vectors of one model at a task whose queries find images.

    Raises:
        ArtefactError: The embeddings are gone.
    """
    if isinstance(data, Retrieval):
        return _image_queries(results, task, data)
    if isinstance(data, CrossModal):
        return _captions(results, task, data)
    if isinstance(data, TextRetrieval):
        asked = [Asked(text, None, -1, label) for text, label in zip(data.texts, data.labels, strict=True)]
        vectors = stored_captions(results, data.fingerprint)
        images = [stored_images(results, task, table) for table in data.gallery]
        return Space(asked, vectors, np.arange(len(asked)), data.gallery, images)
    raise ArtefactError(f"The queries of {task.name} find classes, not images.")


def _image_queries(results: Results, task: Task, data: Retrieval) -> Space:
    table, vectors = data.queries, stored_images(results, task, data.queries)
    rows = _rows_of(table, vectors.ids)
    if data.truth is not None:
        asked = [
            Asked(image, table, row, frozenset([*truth["easy"], *truth["hard"]]), frozenset(truth["junk"]))
            for image, row, truth in ((table.ids[row], row, data.truth[row]) for row in rows)
        ]
        places = np.arange(len(rows))
    else:
        places = np.array([place for place, row in enumerate(rows) if table.labels[row] is not None], np.int64)
        labels = [table.labels[rows[place]] or "" for place in places]
        asked = [Asked(label, table, rows[place], label) for label, place in zip(labels, places.tolist(), strict=True)]
    if not data.gallery:
        return Space(asked, vectors, places, [table], [vectors], places)
    return Space(asked, vectors, places, data.gallery, [stored_images(results, task, one) for one in data.gallery])


def _captions(results: Results, task: Task, data: CrossModal) -> Space:
    table, images = data.images, stored_images(results, task, data.images)
    readable = set(_rows_of(table, images.ids))
    asked = [
        Asked(caption, None, -1, frozenset([row]))
        for row, captions in enumerate(table.captions)
        if row in readable
        for caption in captions
    ]
    return Space(asked, stored_captions(results, table.fingerprint), np.arange(len(asked)), [table], [images])


def _outcome(asked: Asked, table: Table, row: int, place: int) -> Outcome:
    """Whether an image, the `place`-th of the gallery's tables, is what a query asked for."""
    if table is asked.table and row == asked.row:
        return "itself"
    if isinstance(asked.relevant, str):
        return "hit" if table.labels[row] == asked.relevant else "miss"
    return "hit" if place in asked.relevant else "ignored" if place in asked.ignored else "miss"


def _rows_of(table: Table, ids: Sequence[str]) -> list[int]:
    row_of = {image: row for row, image in enumerate(table.ids)}
    return [row_of[image] for image in ids]
