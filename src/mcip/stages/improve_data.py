"""What `mcip improve` trains and measures on: the splits, written as tables, and a pool of captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import McipError
from mcip.core.files import atomic_write
from mcip.data import Table, read_table
from mcip.data.class_splits import Split, limit_validation, near_duplicates, split_as_given, split_by_class
from mcip.data.schema import NAMES, folded
from mcip.embeddings import Embeddings
from mcip.evaluation.tasks import TEMPLATES, Task
from mcip.retrieval.ann.probe_texts import default_texts

# The folder, in that of the run, of what was made on the way.
WORK: Final = "work"
# Captioned images in a split from which text to image is measured on them, and on which text towers are realigned.
_CAPTIONED: Final = 20
REALIGN: Final = 64
# Validation images, which every trial embeds.
MOST_VALIDATION: Final = 2000
_LONGEST_TEXT: Final = 300
_ROWS: Final = 1000
_SCHEMA: Final = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.string(),
        "captions": pa.list_(pa.string()), "split": pa.string(), "id": pa.string(),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """The images of a run.

    Attributes:
        train: The rows that are trained on.
        val: The table that trials are compared on.
        test: The table that is measured once.
        text: The kind of task that stands for text: "t2i" where there are captions, "zero-shot" where the labels are
            names, None where there is neither.
        captioned: The rows of `train` that have captions, if there are enough to realign a text tower on.
        rule: How the images were split, in sentences.
    """

    train: Table
    val: Path
    test: Path
    text: str | None
    captioned: Table | None
    rule: str

    def tasks(self, data: Path) -> list[Task]:
        """What models are measured at, on one of the tables."""
        tasks = [Task("i2i", "i2i", str(data))]
        if self.text is not None:
            tasks.append(Task(self.text, self.text, str(data)))  # type: ignore[arg-type]
        return tasks


def has_splits(table: Table) -> bool:
    """Whether a table says itself what is trained on and what is tested on."""
    return {"train", "test"} <= set(table.splits)


def choose_split(table: Table, images: Embeddings, seed: int) -> tuple[Table, Split]:
    """Split the readable rows of a table: as the table does where it has test rows, by class elsewhere."""
    row_of = {name: row for row, name in enumerate(table.ids)}
    table = table.subset([row_of[name] for name in images.ids])
    vectors = images.take(range(len(images)))
    codes = table.label_numbers
    if has_splits(table):
        split = split_as_given(table.splits, codes, near_duplicates(vectors, table.splits))
    else:
        split = split_by_class(codes, near_duplicates(vectors, codes), seed)
    return table, limit_validation(split, codes, MOST_VALIDATION, seed)


def prepare(table: Table, split: Split, folder: Path) -> Prepared:
    """Write the tables of validation and test, whose labels are read as names, and say what can be measured on them."""
    names = label_names(table.classes)
    for part in ("val", "test"):
        _write(table.subset(split.rows[part]), folder / f"{part}.parquet", names)
    train = table.subset(split.rows["train"])
    captioned = [np.isin(split.rows[part], table.rows_with_captions).sum() for part in ("val", "test")]
    text = "t2i" if min(captioned) >= _CAPTIONED else "zero-shot" if names else None
    pairs = train.rows_with_captions
    realign = train.subset(pairs) if text == "t2i" and len(pairs) >= REALIGN else None
    return Prepared(train, folder / "val.parquet", folder / "test.parquet", text, realign, split.rule)


def label_names(labels: Sequence[str]) -> dict[str, str]:
    """The labels read as names: `03.red_mug` as "red mug"; empty where they are numbers, or names are not distinct.

    Example:
        >>> label_names(["toys/red_mug", "toys/ball"])
        {'toys/red_mug': 'red mug', 'toys/ball': 'ball'}
        >>> label_names(["product-1", "product-2"])
        {}
    """
    names = {label: " ".join(re.findall(r"[^\W\d_]+", label.rsplit("/", 1)[-1])).lower() for label in labels}
    distinct = len(set(names.values())) == len(names) and all(len(name) > 1 for name in names.values())
    return names if distinct else {}


def write_pool(data: Any, train: Table, folder: Path, columns: Mapping[str, str] | None = None) -> Path:
    """Write the captions that can be made without a pool: those of the table, of its labels, and general phrases.

    They are the captions of the training rows, the texts of the source's other columns in these rows, the names of
    their classes in templates, and the phrases by which searches are calibrated.
    """
    path = folder / "pool.parquet"
    if not path.exists():
        texts = [caption for captions in train.captions for caption in captions]
        names = list(label_names(train.classes).values())
        for name in [*names, *_other_texts(data, train, columns or {})]:
            texts += [template.format(name) for template in TEMPLATES] if len(name.split()) <= 4 else [name]
        _write_table(pa.table({"caption": list(dict.fromkeys([*texts, *default_texts()]))}), path)
    return path


def pool_size(table: Table) -> int:
    """About how many captions `write_pool` makes for these images."""
    return len(default_texts()) + len(table.rows_with_captions) + len(TEMPLATES) * len(label_names(table.classes))


def _other_texts(data: Any, train: Table, columns: Mapping[str, str]) -> list[str]:
    """The different texts of columns that are not the table's, in the rows that are trained on."""
    if isinstance(data, Table):
        return []
    texts: dict[str, None] = {}
    kept = set(train.ids)
    for column in train.source_columns:
        if folded(column) in NAMES or column in columns.values():
            continue
        try:
            table = read_table(data, columns={**columns, "caption": column})
        except McipError:  # no column of texts
            continue
        for name, captions in zip(table.ids, table.captions, strict=True):
            for text in captions if name in kept else ():
                # Words, not codes, URLs or file names.
                if len(text) <= _LONGEST_TEXT and re.search(r"[^\W\d_]{3}", text) and not re.search(r"\w[./]\w", text):
                    texts[text.strip()] = None
    return list(texts)


def _write(table: Table, path: Path, names: dict[str, str]) -> None:
    if path.exists():
        return
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
        for start in range(0, len(table), _ROWS):
            rows = table.subset(range(start, min(start + _ROWS, len(table)))).rows.to_list()
            for row in rows:
                image = row["image"]
                if image["bytes"] is None and "://" not in image["path"]:
                    row["image"] = {"bytes": None, "path": str(Path(image["path"]).resolve())}
                row["label"] = names.get(row["label"], row["label"])
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))


def _write_table(table: pa.Table, path: Path) -> None:
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
