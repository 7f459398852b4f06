"""Retrieval, classification and joint-space metrics: pure functions on NumPy arrays or torch tensors, blocked.

Similarity is the dot product: give L2-normalised embeddings for cosine. Of equal similarities the lower gallery index
ranks first. Queries to which nothing in the gallery is relevant are left out of every mean.
"""

from mcip.metrics.classification import knn_accuracy, knn_classify, top_accuracy, zero_shot_classify
from mcip.metrics.cross_modal import cross_modal_recall
from mcip.metrics.retrieval import average_precisions, recall_at_k, retrieval_map
from mcip.metrics.revisited import revisited_average_precisions, revisited_map
from mcip.metrics.space import ModalityGap, alignment, modality_gap, uniformity

__all__ = [
    "ModalityGap",
    "alignment",
    "average_precisions",
    "cross_modal_recall",
    "knn_accuracy",
    "knn_classify",
    "modality_gap",
    "recall_at_k",
    "retrieval_map",
    "revisited_average_precisions",
    "revisited_map",
    "top_accuracy",
    "uniformity",
    "zero_shot_classify",
]
