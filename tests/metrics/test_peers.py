"""The metrics against torchmetrics and pytorch-metric-learning, where they compute the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torchmetrics.functional.classification import multiclass_accuracy
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP

from mcip.metrics import (
    cross_modal_recall,
    knn_accuracy,
    knn_classify,
    recall_at_k,
    retrieval_map,
    top_accuracy,
    zero_shot_classify,
)


def clusters(rows: int, classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    x = rng.standard_normal((rows, 16)) + np.random.default_rng(9).standard_normal((classes, 16))[labels]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def hit_rate(scores: NDArray[np.float32], relevant: NDArray[np.bool_], k: int) -> float:
    rows = torch.arange(len(scores))[:, None].expand(scores.shape)
    found = RetrievalHitRate(top_k=k)(torch.from_numpy(scores + 2), torch.from_numpy(relevant), indexes=rows)
    return float(found)


def test_torchmetrics_retrieval() -> None:
    queries, labels = clusters(60, 9, 0)
    gallery, gallery_labels = clusters(200, 9, 1)
    scores, relevant = queries @ gallery.T, labels[:, None] == gallery_labels
    rows = torch.arange(60)[:, None].expand(scores.shape)
    # torchmetrics takes items whose score is not above 0 for irrelevant.
    expected = RetrievalMAP()(torch.from_numpy(scores + 2), torch.from_numpy(relevant), indexes=rows)
    assert retrieval_map(queries, gallery, labels, gallery_labels) == pytest.approx(float(expected), abs=1e-6)
    found = recall_at_k(queries, gallery, labels, gallery_labels, (1, 3))
    assert found == pytest.approx({k: hit_rate(scores, relevant, k) for k in (1, 3)}, abs=1e-6)


@pytest.mark.parametrize("direction", ["text_to_image", "image_to_text"])
def test_torchmetrics_hit_rate_between_texts_and_images(direction: Any) -> None:
    images, _ = clusters(40, 40, 2)
    owner = np.arange(120) % 40
    texts, _ = clusters(120, 40, 3)
    scores, relevant = texts @ images.T, owner[:, None] == np.arange(40)
    if direction == "image_to_text":
        scores, relevant = scores.T.copy(), relevant.T.copy()
    found = cross_modal_recall(texts, images, owner, (1, 5), direction)
    assert found == pytest.approx({k: hit_rate(scores, relevant, k) for k in (1, 5)}, abs=1e-6)


def test_torchmetrics_accuracy_of_zero_shot_classes() -> None:
    images, labels = clusters(90, 12, 4)
    classes, _ = clusters(12, 12, 5)
    ranked = zero_shot_classify(images, classes, top=5)
    expected = {
        n: float(
            multiclass_accuracy(
                torch.from_numpy(images @ classes.T), torch.from_numpy(labels), 12, average="micro", top_k=n
            )
        )
        for n in (1, 5)
    }
    assert top_accuracy(ranked, labels, (1, 5)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_pytorch_metric_learning(exclude_self: bool) -> None:
    gallery, gallery_labels = (torch.from_numpy(array) for array in clusters(150, 10, 6))
    queries, labels = (gallery, gallery_labels) if exclude_self else map(torch.from_numpy, clusters(50, 10, 7))
    at = None if exclude_self else 149
    calculator = AccuracyCalculator(
        ("mean_average_precision", "precision_at_1"), k=149, knn_func=CustomKNN(CosineSimilarity())
    )
    expected = calculator.get_accuracy(queries, labels, gallery, gallery_labels, ref_includes_query=exclude_self)
    found = retrieval_map(queries, gallery, labels, gallery_labels, exclude_self, at)
    assert found == pytest.approx(expected["mean_average_precision"], abs=1e-6)
    first = recall_at_k(queries, gallery, labels, gallery_labels, (1,), exclude_self)[1]
    assert first == pytest.approx(expected["precision_at_1"], abs=1e-6)


def test_nearest_neighbour_classification_is_precision_at_1() -> None:
    train, gallery_labels = clusters(150, 10, 6)
    test, labels = clusters(50, 10, 7)
    first = recall_at_k(test, train, labels, gallery_labels, (1,))[1]
    assert knn_accuracy(train, gallery_labels, test, labels, k=1, tops=(1,))[1] == pytest.approx(first)
    assert np.mean(knn_classify(train, gallery_labels, test, k=1) == labels) == pytest.approx(first)
