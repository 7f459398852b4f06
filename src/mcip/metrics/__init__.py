"""Retrieval, classification and joint-space metrics: pure functions on NumPy arrays or torch tensors, blocked.

Similarity is the dot product: give L2-normalised embeddings for cosine. Of equal similarities the lower gallery index
ranks first. Queries to which nothing in the gallery is relevant are left out of every mean. A metric that is a mean
over the queries has a function for the values it is the mean of (`average_precisions`, `..._hits`), which
`bootstrap_interval` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.lazy import lazy_names

if TYPE_CHECKING:
    from mcip.metrics.classification import (
        knn_accuracy,
        knn_classify,
        knn_hits,
        top_accuracy,
        top_hits,
        zero_shot_classify,
    )
    from mcip.metrics.cross_modal import cross_modal_hits, cross_modal_recall
    from mcip.metrics.means import bootstrap_interval
    from mcip.metrics.retrieval import average_precisions, hits_at_k, recall_at_k, retrieval_map
    from mcip.metrics.revisited import revisited_average_precisions, revisited_map
    from mcip.metrics.space import ModalityGap, alignment, modality_gap, uniformity

__all__ = [
    "ModalityGap",
    "alignment",
    "average_precisions",
    "bootstrap_interval",
    "cross_modal_hits",
    "cross_modal_recall",
    "hits_at_k",
    "knn_accuracy",
    "knn_classify",
    "knn_hits",
    "modality_gap",
    "recall_at_k",
    "retrieval_map",
    "revisited_average_precisions",
    "revisited_map",
    "top_accuracy",
    "top_hits",
    "uniformity",
    "zero_shot_classify",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ModalityGap": "space",
        "alignment": "space",
        "average_precisions": "retrieval",
        "bootstrap_interval": "means",
        "cross_modal_hits": "cross_modal",
        "cross_modal_recall": "cross_modal",
        "hits_at_k": "retrieval",
        "knn_accuracy": "classification",
        "knn_classify": "classification",
        "knn_hits": "classification",
        "modality_gap": "space",
        "recall_at_k": "retrieval",
        "retrieval_map": "retrieval",
        "revisited_average_precisions": "revisited",
        "revisited_map": "revisited",
        "top_accuracy": "classification",
        "top_hits": "classification",
        "uniformity": "space",
        "zero_shot_classify": "classification",
    },
)
