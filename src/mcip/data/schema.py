"""The columns of the one table, and a source's rows before they are brought into that form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import datasets
import pyarrow as pa

FEATURES: Final = datasets.Features(
    {
        "image": datasets.Image(decode=False),
        "label": datasets.Value("string"),
        "captions": datasets.Sequence(datasets.Value("string")),
        "split": datasets.Value("string"),
        "id": datasets.Value("string"),
    }
)
# Where an image comes from: a table has this column only where its source has it.
SOURCE: Final = "source"
# What a source may call its columns where none are named: the table's names, and `caption` for a single one.
NAMES: Final = (*FEATURES, SOURCE, "caption")


@dataclass(frozen=True)
class Source:
    """Rows as the source has them, and what is needed to read them as a table.

    Attributes:
        rows: The source's own columns.
        name: What messages call the source.
        folder: Where relative image paths start; the working directory where None.
        splits: Split of each row where the layout tells it, by runs: (split, number of rows).
        cache: Where the hashes of embedded images can be kept: a folder that belongs to the present state of the
            source's files; None where the rows come from no files.
        typed: Whether the types of the columns are the source's. The cells of CSV are all texts.
        skipped: Number of files by suffix that lie beside the source's and are not read.
    """

    rows: datasets.Dataset
    name: str
    folder: Path | None = None
    splits: tuple[tuple[str, int], ...] = ()
    cache: Path | None = None
    typed: bool = True
    skipped: Mapping[str, int] = field(default_factory=dict)


def folded(name: str) -> str:
    """A column's name as names are compared: without case and the spaces around it."""
    return name.strip().casefold()


def of_arrow(table: pa.Table, features: datasets.Features, *facts: object) -> datasets.Dataset:
    """Make a data set of an Arrow table without copying it.

    Left to itself, `datasets` pickles the whole table to tell it from others; here `facts` say what it was made from.
    """
    fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), fingerprint=fingerprint)
