"""The one table: a row is an image, a label (or none), captions (zero or more), a split and an id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from mcip.core.errors import DataError, UnreadableImage
from mcip.core.progress import console
from mcip.data.column_names import NAME_THEM, columns_of, find_columns, nearest, quoted
from mcip.data.columns import arrow_column, standard_rows
from mcip.data.image_hashes import ImageHashes, hash_images
from mcip.data.images import decode
from mcip.data.locate import normal_split
from mcip.data.objects import open_object
from mcip.data.readers import open_source
from mcip.data.remote import read_object
from mcip.data.schema import SOURCE
from mcip.data.text_column import TextColumn, canonical_bytes, numbered, parts
from mcip.data.walk import counted

if TYPE_CHECKING:
    from mcip.data.schema import Source

__all__ = ["Table", "TableData", "read_table"]

_skipped_noted: set[str] = set()


@dataclass(frozen=True, repr=False, eq=False)
class Table:
    """Images with what is known about them, read but not decoded.

    Example:
        >>> table = mcip.read_table("photos")  # doctest: +SKIP
        >>> table.labels[0], table.image(0).size  # doctest: +SKIP
        ('mug', (640, 480))

    Attributes:
        rows: Columns image ({"bytes", "path"}), label (string or null), captions (list of strings), split, id; and
            source (string or null) where the source has it.
        name: What messages call the table, for example "train.csv".
        skipped: Number of files by suffix that lie beside the table's and are not read.
        source_columns: Names of the columns that the source has.
        hashes: Where the hashes of embedded images are remembered.
    """

    rows: datasets.Dataset
    name: str
    skipped: Mapping[str, int] = field(default_factory=dict)
    source_columns: Sequence[str] = ()
    hashes: ImageHashes | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        facts = [
            f"images: {len(self):,}",
            f"classes: {len(self.classes):,}",
            f"with captions: {len(self.rows_with_captions):,}",
            f"splits: {', '.join(pc.unique(self._column('split')).to_pylist())}",
        ]
        return f"Table({self.name!r}, {'; '.join(facts)})"

    def select(self, split: str | None = None) -> Table:
        """The rows of one split, in order; all rows for None.

        Raises:
            DataError: No row has this split; the message names those there are.
        """
        if split is None:
            return self
        name = normal_split(split)
        splits = self._column("split")
        found = np.flatnonzero(pc.equal(splits, name).to_numpy())
        if not len(found):
            known = pc.unique(splits).to_pylist()
            raise DataError(f"{self.name} has no split {split!r}{nearest(split, known)}; it has {', '.join(known)}")
        return self if len(found) == len(self) else self.subset(found)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Table:
        """The rows of these numbers, in this order."""
        hashes = None if self.hashes is None else self.hashes.subset(indices)
        return replace(self, rows=self.rows.select(indices, keep_in_memory=True), hashes=hashes)

    @cached_property
    def labels(self) -> list[str | None]:
        """The label of each row."""
        return list(self.rows["label"][:])

    @cached_property
    def captions(self) -> list[list[str]]:
        """The captions of each row."""
        return list(self.rows["captions"][:])

    @cached_property
    def splits(self) -> list[str]:
        """The split of each row."""
        return list(self.rows["split"][:])

    @cached_property
    def sources(self) -> list[str | None]:
        """Where the image of each row comes from: the column `source`; empty where there is none."""
        return list(self.rows[SOURCE][:]) if SOURCE in self.rows.column_names else []

    @cached_property
    def ids(self) -> Sequence[str]:
        """The id of each row; no two are equal."""
        return TextColumn(self._column("id"))

    @property
    def classes(self) -> list[str]:
        """The different labels, sorted."""
        return self._numbered_labels[0]

    @property
    def label_numbers(self) -> NDArray[np.int64]:
        """The place of each row's label in `classes`, shape (N,); -1 for rows without a label."""
        return self._numbered_labels[1]

    @property
    def rows_with_captions(self) -> NDArray[np.int64]:
        """The rows that have a caption."""
        return np.flatnonzero(pc.greater(pc.list_value_length(self._column("captions")), 0).to_numpy())

    @cached_property
    def _numbered_labels(self) -> tuple[list[str], NDArray[np.int64]]:
        return numbered(self._column("label"))

    def _column(self, name: str) -> pa.ChunkedArray:
        return arrow_column(self.rows, name)

    @property
    def columns_hint(self) -> str:
        """What a message says where labels or captions are missing: the source's columns, and how to name them."""
        return f" Its columns are {quoted(self.source_columns)}. {NAME_THEM}." if self.source_columns else ""

    def image_source(self, row: int) -> bytes | Path:
        """The file of a row's image as it was found: its bytes, or its path; the bytes of an object that is a URI.

        Raises:
            UnreadableImage: The object cannot be read.
        """
        image = self.rows[row]["image"]
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        return read_object(image["path"]) if "://" in image["path"] else Path(image["path"])

    def image(self, row: int) -> Image.Image:
        """Decode the image of a row to RGB, upright.

        Raises:
            UnreadableImage: With the row, its id and the reason.
        """
        try:
            return decode(self.image_source(row))
        except UnreadableImage as error:
            raise UnreadableImage(f"row {row} of {self.name} ({self.ids[row]}): {error}") from error

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a frame; the column `image` holds paths, or the bytes of embedded files, not decoded.

        Example:
            >>> table.to_pandas().groupby("label").size().max()
            np.int64(2)
        """
        frame = self.rows.to_pandas()
        frame["image"] = [image["path"] if image["bytes"] is None else image["bytes"] for image in frame["image"]]
        frame["captions"] = [list(captions) for captions in frame["captions"]]
        return frame

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, labels, captions, splits and the contents of the image files, in the order of the rows.

        It does not depend on where the data lies. Each image is read once; its hash is remembered in the cache until
        the file's size, times or inode change. An image on object storage is not read: its URI counts.
        """
        return self._digest("id", "label", "captions", "split")

    @cached_property
    def images_fingerprint(self) -> str:
        """SHA-256 over ids and the contents of the image files only: what an image's embedding depends on."""
        return self._digest("id")

    def _digest(self, *columns: str) -> str:
        found = [self._column(name) for name in columns]
        if self._uris.null_count < len(self):
            found.append(self._uris)
        digest = hashlib.sha256()
        for part in chain.from_iterable(map(parts, found)):
            for content in canonical_bytes(part):
                digest.update(content)
        if self._uris.null_count:
            digest.update(self._image_hashes.tobytes())
        return digest.hexdigest()

    @cached_property
    def _uris(self) -> pa.ChunkedArray:
        """The URI of each row's image, null where it is a file or embedded."""
        paths = pc.struct_field(self._column("image"), "path")
        is_uri = pc.match_substring(paths, "://")
        if pc.all(is_uri, skip_nulls=False, min_count=0).as_py():
            return paths
        return pc.if_else(is_uri, paths, pa.scalar(None, pa.string()))

    @cached_property
    def _image_hashes(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        return hash_images(self.rows.select_columns("image"), self.hashes)


TableData: TypeAlias = str | os.PathLike[str] | Table | datasets.Dataset | datasets.DatasetDict | pd.DataFrame


def read_table(data: TableData, split: str | None = None, columns: Mapping[str, str] | str | None = None) -> Table:
    """Read a table and check it, without decoding its images.

    Args:
        data: One of
            a folder of class folders, with or without train, val and test folders above them; the label is the
            class folder's name (its path below the root where folders are nested);
            a .csv or .tsv file with a header; image paths are relative to its folder;
            a .parquet file, or a folder or glob of them, or a URI such as "s3://bucket/table.parquet";
            a webdataset .tar file, or a folder or glob of them (.txt: caption, .cls: label, .json: the other columns);
            a data set of the hub, "owner/name" or "owner/name:configuration";
            a table, which is returned;
            a `datasets.Dataset` or `DatasetDict`, or a pandas frame whose images are paths (relative to the working
            directory), bytes or PIL images.
        split: Keep this split only. "valid" and "validation" are the same as "val". Without a column `split`, the split
            is that named by a folder above the files or by the first word of the file's name, else it is "train".
        columns: The table's column names to the source's, for example {"label": "shape", "captions": "title"} or
            "label=shape,captions=title". Columns are image, label, captions (a list, one text, or in CSV a JSON list),
            caption (one text), split, id and source (by which `mcip tune` can weight); only image is required. Case
            does not count in the source's names.

    Raises:
        DataError: The source is missing or empty, a column is missing or of a wrong type, a row has no image, a file
            is missing, or an id occurs twice. The message says which row.
        ConfigError: `columns` names a column that a table does not have.

    Example:
        >>> table = mcip.read_table("photos", split="train")
        >>> len(table), sorted(set(table.labels))[0]
        (6, 'toy-0')
    """
    named = columns_of(columns)
    if isinstance(data, Table):
        if named:
            raise DataError(f"{data.name} is a table already: columns are named where a source is read")
        return data.select(split)
    source = open_source(data) if isinstance(data, str | os.PathLike) else open_object(data)
    rows = standard_rows(source, named)
    _note_skipped(source)
    image = find_columns(source, named)["image"]
    hashes = None
    if source.cache is not None:
        key = hashlib.sha256(image.encode()).hexdigest()[:16]
        hashes = ImageHashes(source.cache / f"images-{key}.npy", len(rows))
    return Table(rows, source.name, source.skipped, tuple(source.rows.column_names), hashes).select(split)


def _note_skipped(source: Source) -> None:
    """Say once which files beside the table's are not read."""
    note = f"{source.name}: these files are not read: {counted(dict(source.skipped))}"
    if source.skipped and note not in _skipped_noted:
        _skipped_noted.add(note)
        console.print(note, markup=False, highlight=False, soft_wrap=True)
