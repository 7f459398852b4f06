"""An index brought to an adapted model: its vectors are multiplied by the adapter's matrix, and no image is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.models.carried import ADAPTER_FILE, read_adapter
from mcip.models.saved import SavedModel
from mcip.retrieval.table import IndexTable
from mcip.retrieval.table_columns import rewrite_vectors

# What the folder of a run of `mcip adapt` holds.
_KIND = "adapted"
# From this condition number of the matrix on, the rounding of float16 would be magnified too much by its inverse.
_LARGEST_CONDITION = 100.0


@dataclass(frozen=True)
class Adapter:
    """A finished run of `mcip adapt`.

    Attributes:
        folder: Its folder.
        matrix: M, float32 of shape (D, D).
        base: The name of the model that was adapted.
        base_fingerprint: Its fingerprint.
        model: The adapted model.
    """

    folder: Path
    matrix: Tensor
    base: str
    base_fingerprint: str
    model: SavedModel

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Adapter:
        """Open the folder of a run.

        Raises:
            ArtefactError: It is none, it is not complete, or it is damaged.
        """
        artefact = Artefact.open(folder, _KIND)
        facts = artefact.manifest
        return cls(
            artefact.folder, read_adapter(artefact.folder / ADAPTER_FILE), facts["base"], facts["made_from"]["model"],
            SavedModel(artefact.folder / "model"),
        )  # fmt: skip

    def change(self, table: IndexTable, undo: bool = False, before_change: Callable[[], None] = lambda: None) -> bool:
        """Multiply the vectors of an index by the matrix, or by its inverse, and record their model, in one commit.

        Vectors of unit length are stored as float16: each is off by up to 2^-11 (0.0005) of its length. This error is
        stretched with the vector, by up to the condition number of M, and rounding adds another 2^-11.

        Args:
            table: The newest version of the index's table.
            undo: Go back from the adapted model to the one before.
            before_change: Called before the table is changed; it may raise.

        Returns:
            Whether there was anything to do.

        Raises:
            ArtefactError: The index was made with another model, or the matrix cannot be inverted well enough.
        """
        ends = [(self.base, self.base_fingerprint), (str(self.model.folder.absolute()), self.model.fingerprint)]
        start, end = ends[::-1] if undo else ends
        identity = table.identity
        if identity.fingerprint == end[1]:
            return False
        if identity.fingerprint != start[1]:
            raise ArtefactError(
                f"{table.uri} was made with the model {identity.model}, not with {start[0]}: the matrix of "
                f"{self.folder} cannot change its vectors. Name the adapter of that model, or index the images again."
            )
        if table.codec is not None:
            raise ArtefactError(
                f"{table.uri} stores vectors as {identity.embedding}, which a matrix cannot change: index the images "
                "with the adapted model at another --db."
            )
        matrix = self._inverse() if undo else self.matrix
        before_change()
        rewrite_vectors(table, lambda vectors: multiply(vectors, matrix), model=end[0], fingerprint=end[1])
        return True

    def _inverse(self) -> Tensor:
        exact = self.matrix.double()
        condition = float(torch.linalg.cond(exact))
        if not condition <= _LARGEST_CONDITION:
            raise ArtefactError(
                f"The matrix of {self.folder} has the condition number {condition:,.0f}: its inverse would magnify the "
                "rounding of the stored vectors too much. Index the images again with the model before it."
            )
        inverse: Tensor = torch.linalg.inv(exact).float()
        return inverse


def multiply(vectors: NDArray[np.float16], matrix: Tensor) -> NDArray[np.float16]:
    """The products x M of vectors (n, D) with a matrix (D, D), of unit length again."""
    products = F.normalize(torch.from_numpy(vectors.astype(np.float32)) @ matrix, dim=-1)
    halves: NDArray[np.float16] = products.numpy().astype(np.float16)
    return halves
