"""Seeded subsamples of benchmarks, small enough to be measured during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mcip.data import Table
from mcip.evaluation.benchmarks.base import (
    Classification,
    ComposedRetrieval,
    CrossModal,
    Data,
    Retrieval,
    TextRetrieval,
    ZeroShot,
)

SEED = 37


def subsample(data: Data, limit: int, seed: int = SEED) -> Data:
    """About `limit` of the query images, and as little of the gallery as these need.

    Whole classes are drawn where images are ranked by class, so that every query keeps what is relevant to it; of k-NN
    whole classes that are voted on, with some of their voters; with ground truth by query, whole queries with all they
    name; single images elsewhere. The same seed draws the same ones.

    Args:
        data: The whole benchmark.
        limit: Query images; smaller benchmarks stay as they are.
        seed: Of the draw.
    """
    random = np.random.default_rng(seed)
    if isinstance(data, Retrieval):
        if data.truth is not None:
            return _queries_with_truth(data, limit, random)
        classes = _whole_classes(data.queries.labels, limit, random)
        gallery = tuple(_of_classes(table, classes, limit, random) for table in data.gallery)
        return replace(data, queries=_of_classes(data.queries, classes, 0, random), gallery=gallery)
    if isinstance(data, Classification):
        if len(data.test) <= limit:
            return data
        classes = _whole_classes(data.test.labels, limit, random)
        train = _per_class(data.train, classes, max(1, 2 * limit // len(classes)), random)
        return Classification(train, _of_classes(data.test, classes, 0, random))
    if isinstance(data, ZeroShot):
        return replace(data, images=_rows(data.images, limit, random))
    if isinstance(data, CrossModal):
        return CrossModal(_rows(data.images, limit, random))
    if isinstance(data, ComposedRetrieval):
        return _objects(data, limit, random)
    return _texts(data, limit, random)


def _objects(data: ComposedRetrieval, limit: int, random: np.random.Generator) -> ComposedRetrieval:
    """Whole objects with their galleries."""
    classes = _whole_classes(data.objects, limit, random)
    kept = [number for number, label in enumerate(data.objects) if label in classes]
    entries = {label: lines for label, lines in data.entries.items() if label in classes}
    query_rows = sorted({data.query_rows[number] for number in kept})
    gallery_rows = sorted({row for lines in entries.values() for row, _ in lines})
    query_place, place = ({row: at for at, row in enumerate(rows)} for rows in (query_rows, gallery_rows))
    return ComposedRetrieval(
        data.queries.subset(query_rows),
        tuple(query_place[data.query_rows[number]] for number in kept),
        tuple(data.texts[number] for number in kept),
        tuple(data.objects[number] for number in kept),
        data.gallery.subset(gallery_rows),
        {label: tuple((place[row], text) for row, text in lines) for label, lines in entries.items()},
    )


def _rows(table: Table, limit: int, random: np.random.Generator) -> Table:
    if len(table) <= limit:
        return table
    return table.subset(np.sort(random.permutation(len(table))[:limit]).tolist())


def _whole_classes(labels: Sequence[str | None], limit: int, random: np.random.Generator) -> set[str]:
    """Classes in random order for as long as their images are at most `limit`, at least two of them."""
    names, counts = np.unique([label for label in labels if label is not None], return_counts=True)
    order = random.permutation(len(names))
    fit = int((np.cumsum(counts[order]) <= limit).sum())
    return set(names[order[: max(2, fit)]].tolist())


def _of_classes(table: Table, classes: set[str], others: int, random: np.random.Generator) -> Table:
    """The images of the classes, and so many of those without a label."""
    rows = [row for row, label in enumerate(table.labels) if label in classes]
    without = np.array([row for row, label in enumerate(table.labels) if label is None], np.int64)
    drawn = without[random.permutation(len(without))[:others]].tolist()
    return table.subset(sorted(rows + drawn))


def _per_class(table: Table, classes: set[str], count: int, random: np.random.Generator) -> Table:
    labels = np.array([label or "" for label in table.labels])
    rows = [random.permutation(np.flatnonzero(labels == label))[:count] for label in sorted(classes)]
    return table.subset(np.sort(np.concatenate(rows)).tolist())


def _queries_with_truth(data: Retrieval, limit: int, random: np.random.Generator) -> Retrieval:
    """Queries for as long as what they name is at most half of the limit; the rest of the gallery is drawn."""
    assert data.truth is not None
    size = sum(map(len, data.gallery))
    if size <= limit:
        return data
    named: set[int] = set()
    kept: list[int] = []
    for query in random.permutation(len(data.queries)).tolist():
        relevant = {int(row) for rows in data.truth[query].values() for row in rows}
        if kept and len(named | relevant) > limit // 2:
            break
        named |= relevant
        kept.append(query)
    rest = np.setdiff1d(np.arange(size), np.array(sorted(named), np.int64))
    rows = np.sort([*named, *random.permutation(rest)[: max(0, limit - len(named))].tolist()])
    kept.sort()
    truth = [
        {kind: np.searchsorted(rows, sorted(relevant)).tolist() for kind, relevant in data.truth[query].items()}
        for query in kept
    ]
    starts = np.cumsum([0, *map(len, data.gallery)])
    gallery = tuple(
        table.subset((rows[(rows >= start) & (rows < stop)] - start).tolist())
        for table, start, stop in zip(data.gallery, starts[:-1], starts[1:], strict=True)
    )
    return replace(data, queries=data.queries.subset(kept), gallery=gallery, truth=truth)


def _texts(data: TextRetrieval, limit: int, random: np.random.Generator) -> TextRetrieval:
    classes = _whole_classes([label for table in data.gallery for label in table.labels], limit, random)
    kept = [row for row, label in enumerate(data.labels) if label in classes]
    return replace(
        data,
        texts=tuple(data.texts[row] for row in kept),
        labels=tuple(data.labels[row] for row in kept),
        gallery=tuple(_of_classes(table, classes, limit, random) for table in data.gallery),
    )
