"""The rows of a table that a training can use: those with a label, those with captions."""

from __future__ import annotations

import numpy as np

from mcip.core.errors import DataError
from mcip.data.table import Table


def captioned(table: Table, purpose: str) -> Table:
    """The rows that have a caption.

    Raises:
        DataError: None has one; `purpose` says what needs them.
    """
    rows = table.rows_with_captions
    if not len(rows):
        raise DataError(f"No row of {table.name} has a caption: {purpose} needs captioned images.{table.columns_hint}")
    return table.subset(rows) if len(rows) < len(table) else table


def labelled(table: Table) -> tuple[Table, list[str]]:
    """The rows with a label, and the ids of those without.

    Raises:
        DataError: There are no labels, or only one class.
    """
    with_label = table.label_numbers >= 0
    without = [table.ids[row] for row in np.flatnonzero(~with_label).tolist()]
    if not table.classes:
        raise DataError(
            f"No row of {table.name} has a label: tuning needs the class of each image.{table.columns_hint}"
        )
    if without:
        table = table.subset(np.flatnonzero(with_label))
    if len(table.classes) == 1:
        raise DataError(
            f"All images of {table.name} have the label {table.classes[0]!r}: tuning needs two classes or more."
        )
    return table, without
