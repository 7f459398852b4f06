"""The mean embedding of each class."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.embeddings.store import Embeddings


def class_means(table: Table, embeddings: Embeddings) -> Tensor:
    """The normalised mean embedding of each class, classes in sorted order; float32 of shape (C, D).

    Embeddings of images that are not in the table have no part in it.
    """
    label_of = dict(zip(table.ids, table.labels, strict=True))
    ids = embeddings.ids
    rows = [row for row, image in enumerate(ids) if image in label_of]
    names, codes = np.unique([label_of[ids[row]] or "" for row in rows], return_inverse=True)
    missing = {label for label in table.labels if label} - set(names.tolist())
    if missing:
        raise DataError(f"No image of the class {min(missing)!r} can be read: leave the class out.")
    return means_of_codes(embeddings.take(rows), codes)


def means_of_codes(vectors: NDArray[np.float32], codes: NDArray[np.int64]) -> Tensor:
    """The normalised mean of the vectors of each class; float32 of shape (C, D).

    Args:
        vectors: float32 of shape (N, D).
        codes: The number of the class of each, counted from 0.
    """
    sums = torch.zeros(int(codes.max()) + 1, vectors.shape[1])
    sums.index_add_(0, torch.from_numpy(codes), torch.from_numpy(vectors))
    return F.normalize(sums, dim=-1)
