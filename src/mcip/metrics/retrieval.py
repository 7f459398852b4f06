"""Mean average precision and recall of ranked retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.blocks import Array, float32
from mcip.core.errors import ConfigError, DataError
from mcip.core.topk import topk
from mcip.metrics.labels import Labels, check_rows, encode
from mcip.metrics.means import check_ks, mean, means
from mcip.metrics.ranks import block_rows, ranks, similarities


def retrieval_map(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude_self: bool = False,
    at: int | None = None,
    *,
    drop_first: bool = False,
    self_rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> float:
    """Mean average precision, from 0 to 1, over the queries that have a relevant item.

    The arguments are those of `average_precisions`. NaN where no query has a relevant item.
    """
    precisions = average_precisions(
        queries, gallery, query_labels, gallery_labels, exclude_self, at, drop_first=drop_first, self_rows=self_rows
    )
    return mean(precisions)


def average_precisions(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude_self: bool = False,
    at: int | None = None,
    *,
    drop_first: bool = False,
    self_rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """The average precision of each query: the mean, over its relevant items, of the precision at their ranks.

    An item is relevant where its label equals the query's; a label of None equals none.

    Args:
        queries: Embeddings (Q, D).
        gallery: Embeddings (N, D).
        query_labels: Q labels.
        gallery_labels: N labels.
        exclude_self: Remove each query from its own ranking; it is gallery item i for query i unless `self_rows` says
            otherwise. False keeps it: GPR1200's protocol.
        at: Cut the ranking after so many items; the sum is then divided by min(relevant items, at), as ILIAS and GLDv2
            do.
        drop_first: Remove the item at rank 1, whatever it is: the reference's protocol for CUB, Cars and SOP.
        self_rows: For `exclude_self`: Q gallery indices, that of the query itself, -1 where it is not in the gallery.

    Returns:
        Shape (Q,), float64, from 0 to 1; NaN for a query without a relevant item.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.
    """
    task = _Task.check(queries, gallery, query_labels, gallery_labels, exclude_self, drop_first, self_rows)
    if at is None:
        size = block_rows(len(task.gallery))
        # One block's memory for all: fresh pages take as long as a good part of the product.
        scores = task.queries.new_empty(min(size, len(task.queries)), len(task.gallery))
        starts = range(0, len(task.queries), size)
        parts = [_full_precisions(task, slice(start, start + size), scores) for start in starts]
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
    self_rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> dict[int, float]:
    """The share of queries with a relevant item among their k nearest, as in metric learning, for each k.

    The other arguments are those of `average_precisions`; queries without a relevant item are left out.

    Returns:
        k -> share, from 0 to 1; NaN where no query has a relevant item.
    """
    hits = hits_at_k(
        queries, gallery, query_labels, gallery_labels, ks, exclude_self, drop_first=drop_first, self_rows=self_rows
    )
    return means(hits, ks)


def hits_at_k(
    queries: Array,
    gallery: Array,
    query_labels: Labels,
    gallery_labels: Labels,
    ks: Sequence[int] = (1,),
    exclude_self: bool = False,
    *,
    drop_first: bool = False,
    self_rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Whether each query has a relevant item among its k nearest: what `recall_at_k` is the mean of.

    Returns:
        Shape (Q, len(ks)), float64: 1, 0, or NaN for a query without a relevant item.
    """
    task = _Task.check(queries, gallery, query_labels, gallery_labels, exclude_self, drop_first, self_rows)
    check_ks(ks)
    hits, relevant = _top_hits(task, max(ks))
    reached = np.logical_or.accumulate(hits, 1)
    columns = [min(k, hits.shape[1]) - 1 for k in ks]
    return np.where(relevant[:, None] > 0, reached[:, columns], np.nan)


@dataclass(frozen=True)
class _Task:
    """The checked arguments, with labels numbered and gallery items grouped by label."""

    queries: Tensor
    gallery: Array
    query_labels: NDArray[np.int64]
    gallery_labels: NDArray[np.int64]
    drop_first: bool
    self_rows: NDArray[np.int64] | None
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
        self_rows: Sequence[int] | NDArray[np.int64] | None,
    ) -> _Task:
        query_codes, gallery_codes = encode(query_labels, gallery_labels)
        check_rows("query", queries, query_codes)
        check_rows("gallery", gallery, gallery_codes)
        if len(gallery) == 0:
            raise DataError("The gallery is empty: there is nothing to rank.")
        if queries.shape[1] != gallery.shape[1]:
            raise DataError(
                f"Queries have dimension {queries.shape[1]}, the gallery {gallery.shape[1]}: use one model."
            )
        if exclude_self and drop:
            raise ConfigError("exclude_self and drop_first are given: each removes the query itself, use one of them.")
        removed = _rows_of_queries(exclude_self, self_rows, len(queries), len(gallery))
        by_label = np.argsort(gallery_codes, kind="stable")
        ordered = gallery_codes[by_label]
        first = np.searchsorted(ordered, query_codes, "left")
        last = np.where(query_codes < 0, first, np.searchsorted(ordered, query_codes, "right"))
        return cls(float32(queries), gallery, query_codes, gallery_codes, drop, removed, by_label, first, last)


def _rows_of_queries(
    exclude_self: bool, rows: Sequence[int] | NDArray[np.int64] | None, queries: int, gallery: int
) -> NDArray[np.int64] | None:
    """The gallery index of each query, -1 for those that are not there; None if none is removed."""
    if rows is None:
        if exclude_self and queries > gallery:
            raise DataError(
                f"exclude_self takes query i for gallery item i, but of {queries} queries only {gallery} are in the "
                "gallery: say where each is with self_rows."
            )
        return np.arange(queries) if exclude_self else None
    if not exclude_self:
        raise ConfigError("self_rows says where the queries are in the gallery, but exclude_self is not given.")
    indices = np.asarray(rows, np.int64)
    if indices.shape != (queries,) or (len(indices) and (indices.min() < -1 or indices.max() >= gallery)):
        raise DataError(f"self_rows must be {queries} indices from -1 (not there) to {gallery - 1}, one per query.")
    return indices


def _full_precisions(task: _Task, part: slice, memory: Tensor) -> NDArray[np.float64]:
    device = task.queries.device
    scores = similarities(task.queries[part], task.gallery, memory)
    columns = task.first[part, None] + np.arange((task.last[part] - task.first[part]).max(initial=1))
    is_item = columns < task.last[part, None]
    items = task.by_label[np.where(is_item, columns, 0)]
    removed = scores.argmax(1).cpu().numpy() if task.drop_first else None
    if task.self_rows is not None:
        removed = task.self_rows[part]
    if removed is not None:
        there = np.flatnonzero(removed >= 0)
        scores[torch.from_numpy(there).to(device), torch.from_numpy(removed[there]).to(device)] = -torch.inf
        is_item &= items != removed[:, None]
    relevant = is_item.sum(1)
    # Places without an item repeat one: the ranks of others need not be known.
    items = np.where(is_item, items, np.take_along_axis(items, is_item.argmax(1)[:, None], 1))
    positions = ranks(scores, torch.from_numpy(items).to(device)).cpu().numpy()
    positions = np.sort(np.where(is_item, positions, len(task.gallery)), 1)
    nth = np.arange(1, positions.shape[1] + 1)
    precision = np.where(nth <= relevant[:, None], nth / (positions + 1), 0.0)
    return np.where(relevant > 0, precision.sum(1) / np.maximum(relevant, 1), np.nan)


def _top_hits(task: _Task, k: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the k nearest items of each query are relevant (Q, k), and how many relevant items there are (Q,)."""
    removes = task.self_rows is not None or task.drop_first
    indices = topk(task.queries, task.gallery, k + removes)[1].cpu().numpy()
    relevant = task.last - task.first
    labels = task.query_labels
    hits = (task.gallery_labels[indices] == labels[:, None]) & (labels[:, None] >= 0)
    if not removes:
        return hits, relevant
    if indices.shape[1] == len(task.gallery):
        hits = np.pad(hits, ((0, 0), (0, 1)))  # a miss, for the rows from which nothing is removed
    dropped = np.zeros(len(indices), np.int64)
    if task.self_rows is not None:
        is_self = indices == task.self_rows[:, None]
        dropped = np.where(is_self.any(1), is_self.argmax(1), hits.shape[1] - 1)
        label_of_self = np.where(task.self_rows >= 0, task.gallery_labels[task.self_rows], -1)
        relevant = relevant - ((labels == label_of_self) & (labels >= 0))
    else:
        relevant = relevant - hits[:, 0]
    keep = np.arange(hits.shape[1]) != dropped[:, None]
    return hits[keep].reshape(len(hits), -1)[:, :k], relevant
