"""Revisited Oxford and Paris: easy, hard and junk images, trapezoid average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mcip.core.blocks import Array, float32
from mcip.core.errors import ConfigError, DataError
from mcip.metrics.means import mean
from mcip.metrics.ranks import block_rows, ranks, similarities

Difficulty: TypeAlias = Literal["easy", "medium", "hard"]

_RELEVANT: dict[str, tuple[str, ...]] = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
_IGNORED: dict[str, tuple[str, ...]] = {"easy": ("junk", "hard"), "medium": ("junk",), "hard": ("junk", "easy")}


def revisited_map(
    queries: Array,
    gallery: Array,
    ground_truth: Sequence[Mapping[str, Any]],
    difficulty: Difficulty = "medium",
) -> float:
    """Mean average precision of ROxford or RParis, from 0 to 1, over the queries that have a relevant image.

    The arguments are those of `revisited_average_precisions`. NaN where no query has a relevant image.
    """
    return mean(revisited_average_precisions(queries, gallery, ground_truth, difficulty))


def revisited_average_precisions(
    queries: Array,
    gallery: Array,
    ground_truth: Sequence[Mapping[str, Any]],
    difficulty: Difficulty = "medium",
) -> NDArray[np.float64]:
    """The average precision of each query by the trapezoid rule, with junk images taken out of the ranking.

    Relevant are the easy images ("easy"), the easy and the hard ones ("medium"), or the hard ones ("hard"); the others
    of the three kinds easy, hard and junk are ignored. The j-th
    relevant image (from 0), at rank r (from 0) after the ignored ones are taken out, adds the mean of j / r (1 for
    r = 0) and (j + 1) / (r + 1), divided by the number of relevant images.

    Args:
        queries: Embeddings (Q, D).
        gallery: Embeddings (N, D); distractors are rows that no list names.
        ground_truth: For each query the gallery indices under "easy", "hard" and "junk".
        difficulty: Which images are relevant.

    Returns:
        Shape (Q,), float64; NaN for a query without a relevant image.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.

    Source: Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018,
    section 3.
    """
    if difficulty not in _RELEVANT:
        raise ConfigError(f'difficulty is "{difficulty}": it is "easy", "medium" or "hard".')
    if len(ground_truth) != len(queries):
        raise DataError(f"{len(queries)} queries have {len(ground_truth)} entries of ground truth: give one for each.")
    relevant = [_indices(truth, _RELEVANT[difficulty], row, len(gallery)) for row, truth in enumerate(ground_truth)]
    ignored = [_indices(truth, _IGNORED[difficulty], row, len(gallery)) for row, truth in enumerate(ground_truth)]
    vectors = float32(queries)
    precisions = np.full(len(vectors), np.nan)
    size = block_rows(len(gallery))
    for start in range(0, len(vectors), size):
        scores = similarities(vectors[start : start + size], gallery)
        for row in range(start, start + len(scores)):
            if len(relevant[row]):
                items = torch.from_numpy(np.concatenate([relevant[row], ignored[row]])).to(scores.device)
                found = ranks(scores[row - start, None], items[None])[0].cpu().numpy()
                precisions[row] = _trapezoid(*np.split(found, [len(relevant[row])]))
    return precisions


def _indices(truth: Mapping[str, Any], kinds: tuple[str, ...], row: int, gallery_size: int) -> NDArray[np.int64]:
    missing = sorted({"easy", "hard", "junk"} - set(truth))
    if missing:
        raise DataError(f'The ground truth of query {row} has no "{missing[0]}": give "easy", "hard" and "junk".')
    indices = np.concatenate([np.asarray(truth[kind], np.int64).reshape(-1) for kind in kinds])
    if len(indices) and (indices.min() < 0 or indices.max() >= gallery_size):
        raise DataError(f"The ground truth of query {row} names image {indices.max()} of a gallery of {gallery_size}.")
    return np.unique(indices)


def _trapezoid(relevant: NDArray[np.int64], ignored: NDArray[np.int64]) -> float:
    relevant = np.sort(relevant)
    rank = relevant - np.searchsorted(np.sort(ignored), relevant)
    nth = np.arange(len(rank))
    before = np.where(rank == 0, 1.0, nth / np.maximum(rank, 1))
    return float(((before + (nth + 1) / (rank + 1)) / 2).mean())
