"""The mean embedding of each class."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.embeddings.store import Embeddings


def class_means(table: Table, embeddings: Embeddings) -> Tensor:
    """The normalised mean embedding of each class, classes in sorted order; float32 of shape (C, D)."""
    label_of = dict(zip(table.ids, table.labels, strict=True))
    names, codes = np.unique([label_of[image] or "" for image in embeddings.ids], return_inverse=True)
    missing = {label for label in table.labels if label} - set(names.tolist())
    if missing:
        raise DataError(f"No image of the class {min(missing)!r} can be read: leave the class out.")
    sums = torch.zeros(len(names), embeddings.dim)
    sums.index_add_(0, torch.from_numpy(codes), torch.from_numpy(embeddings.array()))
    return F.normalize(sums, dim=-1)
