"""The one table: a row is an image, a label (or none), captions (zero or more), a split and an id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets
from PIL import Image

from mcip.core.errors import DataError, UnreadableImage
from mcip.data.caption_pool import collect_captions
from mcip.data.columns import nearest, standard_rows
from mcip.data.images import decode
from mcip.data.locate import normal_split
from mcip.data.readers import open_source

__all__ = ["Table", "read_captions", "read_table"]


@dataclass(frozen=True)
class Table:
    """Images with what is known about them, read but not decoded.

    Attributes:
        rows: Columns image ({"bytes", "path"}), label (string or null), captions (list of strings), split, id.
        name: What messages call the table, for example "train.csv".
    """

    rows: datasets.Dataset
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, split: str | None = None) -> Table:
        """The rows of one split, in order; all rows for None.

        Raises:
            DataError: No row has this split; the message names those there are.
        """
        if split is None:
            return self
        wanted = normal_split(split)
        found = [row for row, name in enumerate(self.splits) if name == wanted]
        if not found:
            known = list(dict.fromkeys(self.splits))
            raise DataError(f"{self.name} has no split {split!r}{nearest(split, known)}; it has {', '.join(known)}")
        return self if len(found) == len(self) else self.subset(found)

    def subset(self, indices: Sequence[int]) -> Table:
        """The rows of these numbers, in this order."""
        return Table(self.rows.select(indices, keep_in_memory=True), self.name)

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
    def ids(self) -> list[str]:
        """The id of each row; no two are equal."""
        return list(self.rows["id"][:])

    def image_source(self, row: int) -> bytes | Path:
        """The file of a row's image as it was found: its bytes, or its path."""
        image = self.rows[row]["image"]
        return image["bytes"] if image["bytes"] is not None else Path(image["path"])

    def image(self, row: int) -> Image.Image:
        """Decode the image of a row to RGB, upright.

        Raises:
            UnreadableImage: With the row, its id and the reason.
        """
        try:
            return decode(self.image_source(row))
        except UnreadableImage as error:
            raise UnreadableImage(f"row {row} of {self.name} ({self.ids[row]}): {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, labels, captions, splits and the sizes of the image files, in the order of the rows.

        It does not depend on where the data lies. An image replaced by another of exactly as many bytes goes unnoticed.
        """
        digest = hashlib.sha256()
        parts = zip(self.ids, self.labels, self.captions, self.splits, self._image_sizes(), strict=True)
        for part in parts:
            digest.update(repr(part).encode())
        return digest.hexdigest()

    @cached_property
    def images_fingerprint(self) -> str:
        """SHA-256 over ids and the sizes of the image files only: what an image's embedding depends on."""
        return hashlib.sha256(repr(list(zip(self.ids, self._image_sizes(), strict=True))).encode()).hexdigest()

    def _image_sizes(self) -> list[int]:
        sizes: list[int] = []
        for batch in self.rows.select_columns("image").with_format("arrow").iter(1000):
            images = batch["image"].combine_chunks()
            content, paths = images.field("bytes"), images.field("path")
            for data, path in zip(content, paths, strict=True):
                if data.is_valid:
                    sizes.append(len(data.as_buffer()))
                else:
                    try:
                        sizes.append(Path(path.as_py()).stat().st_size)
                    except OSError:
                        sizes.append(-1)
        return sizes


def read_table(source: str | Path, split: str | None = None, columns: dict[str, str] | None = None) -> Table:
    """Read a table and check it, without decoding its images.

    Args:
        source: One of
            a folder of class folders, with or without train, val and test folders above them; the label is the
            class folder's name (its path below the root where folders are nested);
            a .csv or .tsv file with a header; image paths are relative to its folder;
            a .parquet file, or a folder or glob of them;
            a webdataset .tar file, or a folder or glob of them (.txt: caption, .cls: label, .json: the other columns);
            a data set of the hub, "owner/name" or "owner/name:configuration".
        split: Keep this split only. "valid" and "validation" are the same as "val". Without a column `split`, the split
            is told by a folder above the files or by the first word of the file's name, else it is "train".
        columns: Our column names to the source's, for example {"label": "shape", "captions": "title"}. Columns are
            image, label, captions (a list, one text, or in CSV a JSON list), caption (one text), split and id; only
            image is required.

    Raises:
        DataError: The source is missing or empty, a column is missing or of a wrong type, a row has no image, a file
            is missing, or an id occurs twice. The message says which row.
    """
    opened = open_source(source)
    return Table(standard_rows(opened, columns or {}), opened.name).select(split)


def read_captions(source: str | Path | Table, column: str | None = None) -> datasets.Dataset:
    """Read a pool of captions as one memory-mapped column `caption`, which may be larger than memory.

    Args:
        source: A .txt file (a caption a line), a .csv, .parquet or .tar file or a folder or glob of them, a data set
            of the hub, or a table. Captions are the column `caption` (text) or `captions` (lists).
        column: Another name of that column.

    Returns:
        A data set with the column `caption` (string); blank captions are left out, duplicates are kept.

    Raises:
        DataError: There is no such column, or no caption in it.
    """
    if isinstance(source, Table):
        return collect_captions(source.rows.select_columns("captions"), source.name, None)
    return collect_captions(source, str(source), column)
