"""Mean average precision and recall of ranked retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.errors import ConfigError, DataError
from mcip.metrics.labels import Labels, check_rows, encode
from mcip.metrics.ranks import block_rows, ranks, similarities
from mcip.topk import Array, float32, topk


def retrieval_map(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude_self: bool = False,
    at: int | None = None,
    *,
    drop_first: bool = False,
) -> float:
    """Mean average precision, from 0 to 1, over the queries that have a relevant item.

    The arguments are those of `average_precisions`. NaN where no query has a relevant item.
    """
    precisions = average_precisions(
        queries, gallery, query_labels, gallery_labels, exclude_self, at, drop_first=drop_first
    )
    return _mean(precisions)


def average_precisions(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude_self: bool = False,
    at: int | None = None,
    *,
    drop_first: bool = False,
) -> NDArray[np.float64]:
    """The average precision of each query: the mean, over its relevant items, of the precision at their ranks.

    An item is relevant where its label equals the query's; a label of None equals none.

    Args:
        queries: Embeddings (Q, D).
        gallery: Embeddings (N, D).
        query_labels: Q labels.
        gallery_labels: N labels.
        exclude_self: Query i is gallery item i and is removed from its own ranking. False keeps it: GPR1200's protocol.
        at: Cut the ranking after so many items; the sum is then divided by min(relevant items, at), as ILIAS and GLDv2
            do.
        drop_first: Remove the item at rank 1, whatever it is: the reference's protocol for CUB, Cars and SOP.

    Returns:
        Shape (Q,), float64, from 0 to 1; NaN for a query without a relevant item.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.
    """
    task = _Task.check(queries, gallery, query_labels, gallery_labels, exclude_self, drop_first)
    if at is None:
        parts = [_full_precisions(task, rows) for rows in _query_blocks(task)]
        return np.concatenate(parts) if parts else np.empty(0)
    if at < 1:
        raise ConfigError(f"at is {at}: a ranking has at least 1 item.")
    hits, relevant = _top_hits(task, at)
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        return np.where(relevant > 0, (precision * hits).sum(1) / np.minimum(relevant, at), np.nan)


def recall_at_k(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    ks: Sequence[int] = (1,),
    exclude_self: bool = False,
    *,
    drop_first: bool = False,
) -> dict[int, float]:
    """The share of queries with a relevant item among their k nearest, as in metric learning, for each k.

    The other arguments are those of `average_precisions`; queries without a relevant item are left out.

    Returns:
        k -> share, from 0 to 1; NaN where no query has a relevant item.
    """
    task = _Task.check(queries, gallery, query_labels, gallery_labels, exclude_self, drop_first)
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks is {tuple(ks)}: give one or more, each at least 1.")
    hits, relevant = _top_hits(task, max(ks))
    reached = np.where(relevant[:, None] > 0, np.logical_or.accumulate(hits, 1), np.nan)
    return {k: _mean(reached[:, min(k, reached.shape[1]) - 1]) if reached.shape[1] else float("nan") for k in ks}


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True)
class _Task:
    """The checked arguments, with labels numbered and gallery items grouped by label."""

    queries: Tensor
    gallery: Array
    query_labels: NDArray[np.int64]
    gallery_labels: NDArray[np.int64]
    exclude_self: bool
    drop_first: bool
    by_label: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def check(
        cls,
        queries: Array,
        gallery: Array,
        query_labels: Labels,
        gallery_labels: Labels,
        exclude_self: bool,
        drop: bool,
    ) -> _Task:
        wanted, held = encode(query_labels, gallery_labels)
        check_rows("query", queries, wanted)
        check_rows("gallery", gallery, held)
        if len(gallery) == 0:
            raise DataError("The gallery is empty: there is nothing to rank.")
        if queries.shape[1] != gallery.shape[1]:
            raise DataError(
                f"Queries have dimension {queries.shape[1]}, the gallery {gallery.shape[1]}: use one model."
            )
        if exclude_self and drop:
            raise ConfigError("exclude_self and drop_first are given: each removes the query itself, use one of them.")
        if exclude_self and len(queries) > len(gallery):
            raise DataError(f"exclude_self takes query i for gallery item i, but of {len(queries)} queries only "
                            f"{len(gallery)} are in the gallery.")  # fmt: skip
        by_label = np.argsort(held, kind="stable")
        first = np.searchsorted(held[by_label], wanted, "left")
        last = np.where(wanted < 0, first, np.searchsorted(held[by_label], wanted, "right"))
        return cls(float32(queries), gallery, wanted, held, exclude_self, drop, by_label, first, last)


def _query_blocks(task: _Task) -> Iterator[range]:
    size = block_rows(len(task.gallery))
    for start in range(0, len(task.queries), size):
        yield range(start, min(start + size, len(task.queries)))


def _full_precisions(task: _Task, rows: range) -> NDArray[np.float64]:
    part = slice(rows.start, rows.stop)
    device = task.queries.device
    scores = similarities(task.queries[part], task.gallery)
    columns = task.first[part, None] + np.arange((task.last[part] - task.first[part]).max(initial=0))
    is_item = columns < task.last[part, None]
    items = task.by_label[np.where(is_item, columns, 0)]
    removed = _removed(task, rows, scores)
    if removed is not None:
        scores.scatter_(1, removed[:, None], -torch.inf)
        is_item &= items != removed[:, None].cpu().numpy()
    positions = ranks(scores, torch.from_numpy(items).to(device)).cpu().numpy()
    positions = np.sort(np.where(is_item, positions, len(task.gallery)), 1)
    relevant = is_item.sum(1)
    nth = np.arange(1, positions.shape[1] + 1)
    precision = np.where(nth <= relevant[:, None], nth / (positions + 1), 0.0)
    return np.where(relevant > 0, precision.sum(1) / np.maximum(relevant, 1), np.nan)


def _removed(task: _Task, rows: range, scores: Tensor) -> Tensor | None:
    if task.exclude_self:
        return torch.arange(rows.start, rows.stop, device=scores.device)
    return scores.argmax(1) if task.drop_first else None


def _top_hits(task: _Task, k: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the k nearest items of each query are relevant (Q, k), and how many relevant items there are (Q,)."""
    removes = task.exclude_self or task.drop_first
    indices = topk(task.queries, task.gallery, k + removes)[1].cpu().numpy()
    relevant = task.last - task.first
    labels = task.query_labels
    hits = (task.gallery_labels[indices] == labels[:, None]) & (labels[:, None] >= 0)
    if not removes:
        return hits, relevant
    self_column = np.zeros(len(indices), np.int64)
    if task.exclude_self:
        is_self = indices == np.arange(len(indices))[:, None]
        self_column = np.where(is_self.any(1), is_self.argmax(1), indices.shape[1] - 1)
        relevant = relevant - (labels == task.gallery_labels[: len(labels)]) * (labels >= 0)
    else:
        relevant = relevant - hits[:, 0]
    keep = np.arange(indices.shape[1]) != self_column[:, None]
    return hits[keep].reshape(len(hits), -1), relevant
