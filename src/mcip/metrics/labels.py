"""Labels of any kind as small integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.errors import DataError

Labels: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]


def label_array(labels: Labels) -> NDArray[Any]:
    """Labels as a one-dimensional array; of Python objects where one is None."""
    if isinstance(labels, Tensor):
        labels = labels.cpu().numpy()
    elif not isinstance(labels, np.ndarray) and any(label is None for label in labels):
        labels = np.array(labels, object)
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DataError(f"Labels have shape {array.shape}: one label per row is needed.")
    return array


def encode(*labels: Labels) -> list[NDArray[np.int64]]:
    """Number the labels, the same label with the same number in all arguments; None becomes -1.

    Raises:
        DataError: One argument holds numbers and another strings, so that nothing could match.
    """
    arrays = [label_array(each) for each in labels]
    kinds = {type(label) in (str, np.str_) for array in arrays for label in array[:1] if label is not None}
    if len(kinds) > 1:
        raise DataError("Some labels are strings and some are numbers: they would never match. Give all in one type.")
    if any(array.dtype == object for array in arrays):
        numbers = {label: n for n, label in enumerate(sorted({x for a in arrays for x in a.tolist()} - {None}))}
        return [np.array([numbers.get(label, -1) for label in array.tolist()], np.int64) for array in arrays]
    _, inverse = np.unique(np.concatenate(arrays), return_inverse=True)
    return np.split(inverse.astype(np.int64), np.cumsum([len(array) for array in arrays])[:-1])


def check_rows(name: str, embeddings: Tensor | NDArray[Any], labels: NDArray[Any]) -> None:
    """Raise `DataError` where there is not one label per embedding."""
    if len(embeddings) != len(labels):
        raise DataError(f"{len(embeddings)} {name} embeddings have {len(labels)} labels: give one label per row.")
