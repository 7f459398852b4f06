"""Weighted k-NN and zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.blocks import Array
from mcip.core.errors import ConfigError, DataError
from mcip.core.topk import topk
from mcip.metrics.labels import Labels, check_rows, encode, label_array
from mcip.metrics.means import check_ks, means


def knn_classify(
    train: Array, train_labels: Labels, test: Array, k: int = 21, temperature: float = 0.1
) -> Tensor | NDArray[np.generic]:
    """Predict labels by a weighted vote of the k nearest training items.

    A neighbour votes for its class with exp(similarity / temperature). Of classes with equal votes the one that sorts
    first wins. Votes are exact sums, rounded once to float64: the order of the neighbours does not change them.

    Args:
        train: Embeddings (N, D).
        train_labels: N labels, numbers or strings.
        test: Embeddings (M, D).
        k: Neighbours; all of `train` where it has fewer.
        temperature: Above 0.

    Returns:
        M labels: an int64 tensor where `train_labels` is a tensor, else an array of their type.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.

    Example:
        >>> knn_classify(np.eye(3), ["cup", "cup", "star"], np.array([[0.0, 0.2, 0.9]]), k=2).tolist()
        ['star']

    Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    section 3.4; k = 21 and temperature 0.1 as in Schall et al., SISAP 2024.
    """
    (codes,) = encode(train_labels)
    best = _knn_ranking(train, codes, test, k, temperature, 1)[:, 0]
    known = label_array(train_labels)
    _, first = np.unique(codes, return_index=True)
    predictions: NDArray[np.generic] = known[first][best]
    return torch.from_numpy(predictions) if isinstance(train_labels, Tensor) else predictions


def knn_accuracy(
    train: Array,
    train_labels: Labels,
    test: Array,
    test_labels: Labels,
    k: int = 21,
    temperature: float = 0.1,
    tops: Sequence[int] = (1, 5),
) -> dict[int, float]:
    """The share of test items whose class is among the n first of `knn_classify`'s vote, for each n of `tops`.

    Classes without a vote are never counted; a test label that `train` lacks is a miss. NaN without test items.
    """
    return means(knn_hits(train, train_labels, test, test_labels, k, temperature, tops), tops)


def knn_hits(
    train: Array,
    train_labels: Labels,
    test: Array,
    test_labels: Labels,
    k: int = 21,
    temperature: float = 0.1,
    tops: Sequence[int] = (1, 5),
) -> NDArray[np.float64]:
    """Whether each test item's class is among the n first of the vote: what `knn_accuracy` is the mean of.

    Returns:
        Shape (M, len(tops)), float64, 0 or 1.
    """
    codes, expected = encode(train_labels, test_labels)
    check_rows("test", test, expected)
    check_ks(tops, "tops")
    classes, codes = np.unique(codes, return_inverse=True)
    position = np.searchsorted(classes, expected).clip(max=len(classes) - 1)
    expected = np.where(classes[position] == expected, position, -2)
    return top_hits(_knn_ranking(train, codes, test, k, temperature, max(tops)), expected, tops)


def zero_shot_classify(images: Array, class_embeddings: Array, top: int = 1) -> NDArray[np.int64]:
    """Predict the class whose text embedding is the most similar; of equal ones, as `topk` defines them, the first.

    Args:
        images: Embeddings (M, D).
        class_embeddings: Shape (C, D): per class the renormalised mean of its prompts' normalised embeddings.
        top: How many classes to return for an image, the best first.

    Returns:
        Class indices, int64, shape (M,) for `top` 1, else (M, min(top, C)).
    """
    predictions: NDArray[np.int64] = topk(images, class_embeddings, top)[1].cpu().numpy()
    return predictions[:, 0] if top == 1 else predictions


def top_accuracy(ranked: Array, labels: Labels, tops: Sequence[int] = (1,)) -> dict[int, float]:
    """The share of rows whose label is among the first n of their ranked predictions, for each n of `tops`.

    The arguments are those of `top_hits`.

    Returns:
        n -> share, from 0 to 1; NaN where there are no rows.
    """
    return means(top_hits(ranked, labels, tops), tops)


def top_hits(ranked: Array, labels: Labels, tops: Sequence[int] = (1,)) -> NDArray[np.float64]:
    """Whether each row's label is among the first n of its ranked predictions, for each n of `tops`.

    Args:
        ranked: Shape (M, n) or (M,), the best prediction first.
        labels: M labels.
        tops: The values of n.

    Returns:
        Shape (M, len(tops)), float64, 0 or 1.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.
    """
    predictions = np.asarray(ranked.cpu() if isinstance(ranked, Tensor) else ranked)
    predictions = predictions[:, None] if predictions.ndim == 1 else predictions
    expected = label_array(labels)
    check_ks(tops, "tops")
    if len(predictions) != len(expected):
        raise DataError(f"{len(predictions)} rows of predictions have {len(expected)} labels: give one label per row.")
    correct = predictions == expected[:, None]
    return np.stack([correct[:, :n].any(1) for n in tops], 1).astype(np.float64)


def _knn_ranking(
    train: Array, codes: NDArray[np.int64], test: Array, k: int, temperature: float, top: int
) -> NDArray[np.int64]:
    """The `top` classes of each test item by votes, -1 where fewer have one."""
    check_rows("training", train, codes)
    if len(train) == 0:
        raise DataError("There are no training items: k-NN has no neighbours.")
    if temperature <= 0:
        raise ConfigError(f"temperature is {temperature}: it must be above 0 (the paper uses 0.1).")
    values, indices = topk(test, train, k)
    classes = torch.from_numpy(codes).to(indices.device)[indices]
    weights = ((values - values[:, :1]).double() / temperature).exp()
    ranking: NDArray[np.int64] = _rank_classes(classes, weights, top).cpu().numpy()
    return ranking


def _rank_classes(classes: Tensor, weights: Tensor, top: int) -> Tensor:
    """The first `top` classes of each row by the sums of their weights, of equal sums the lower class first.

    Args:
        classes: Class of each neighbour, shape (M, k), int64.
        weights: Its weight, shape (M, k), float64.
        top: How many classes to keep.

    Returns:
        Shape (M, top), int64; -1 where fewer classes have a neighbour.

    Source: Neumaier's compensated summation, ZAMM 1974, which gives sums that do not depend on the order.
    """
    classes, order = classes.sort(dim=1, stable=True)
    weights = weights.gather(1, order)
    votes = torch.full_like(weights, -torch.inf)
    total, lost = torch.zeros_like(weights[:, 0]), torch.zeros_like(weights[:, 0])
    for column in range(classes.shape[1]):
        if column:
            same = classes[:, column] == classes[:, column - 1]
            total, lost = total * same, lost * same
        term = weights[:, column]
        larger, smaller = torch.maximum(total, term), torch.minimum(total, term)
        total = larger + smaller
        lost = lost + ((larger - total) + smaller)
        votes[:, column] = total + lost
    # The sum of a class stands at its last neighbour.
    votes[:, :-1].masked_fill_(classes[:, :-1] == classes[:, 1:], -torch.inf)
    votes, order = votes.sort(dim=1, descending=True, stable=True)
    ranked = classes.gather(1, order).masked_fill(votes == -torch.inf, -1)[:, :top]
    return torch.nn.functional.pad(ranked, (0, top - ranked.shape[1]), value=-1)
