"""Full mAP of each image among all, itself included, as other libraries compute it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray


def torchmetrics(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from torchmetrics.retrieval import RetrievalMAP

    target = torch.from_numpy(labels)
    rows = torch.arange(len(x))[:, None].expand(-1, len(x))
    return float(RetrievalMAP()(x @ x.T, target[:, None] == target, indexes=rows))


def pytorch_metric_learning(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    search = CustomKNN(CosineSimilarity(), batch_size=512)
    calculator = AccuracyCalculator(
        include=("mean_average_precision",), k=len(x), knn_func=search, device=torch.device("cpu")
    )
    target = torch.from_numpy(labels)
    found = calculator.get_accuracy(x, target, x, target, ref_includes_query=False)
    return float(found["mean_average_precision"])


def open_metric_learning(x: torch.Tensor, labels: NDArray[np.int64]) -> float:
    from oml.functional.metrics import calc_retrieval_metrics

    target = torch.from_numpy(labels)
    ranked = (x @ x.T).argsort(dim=1, descending=True)
    relevant = [(target == label).nonzero()[:, 0] for label in target]
    found = calc_retrieval_metrics(
        list(ranked), relevant, cmc_top_k=(), precision_top_k=(), map_top_k=(len(x),), verbose=False
    )
    return float(found["map"][len(x)])


PEERS: dict[str, Callable[[torch.Tensor, NDArray[np.int64]], float]] = {
    "torchmetrics": torchmetrics,
    "pytorch_metric_learning": pytorch_metric_learning,
    "open_metric_learning": open_metric_learning,
}
