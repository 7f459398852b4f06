"""The tables of the example, made from the data sets' parquet files by stated rules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mcip.core.files import atomic_write

# Species of cub100's train split that validation holds out (every fifth), while hyper-parameters are chosen.
HELD_OUT_EVERY = 5
# How often a bird image is seen for one fashion image: there are ten times fewer of them.
BIRD_REPEATS = 3
_COLUMNS = ["image", "label", "captions", "split", "id"]


def read(source: Path, name: str, split: str | None = None) -> pa.Table:
    """One of the data sets, or one split of it."""
    table = pq.read_table(source / f"{name}.parquet", columns=_COLUMNS)
    table = table.set_column(4, "id", pc.binary_join_element_wise(name, table["id"].cast(pa.string()), "/"))
    return table if split is None else table.filter(pc.equal(table["split"], split))


def write(table: pa.Table, path: Path) -> str:
    """Write a table atomically; one that is there with the same rows is left as it is."""
    if not path.exists() or not pq.read_table(path).equals(table):
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary)
    return str(path)


def relabel(table: pa.Table, labels: list[str | None]) -> pa.Table:
    """The table with other labels."""
    return table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels, pa.string()))


def recaption(table: pa.Table, captions: list[list[str]]) -> pa.Table:
    """The table with other captions."""
    return table.set_column(
        table.schema.get_field_index("captions"), "captions", pa.array(captions, pa.list_(pa.string()))
    )


def repeated_titles(table: pa.Table) -> pa.Table:
    """The images whose title another image of the table has too: a title is a class."""
    labels = table["label"].to_pylist()
    count = Counter(labels)
    return table.filter(pa.array([count[label] > 1 for label in labels]))


def birds(source: Path, held_out: bool | None) -> pa.Table:
    """cub100's train species: the held-out ones, the others, or all (None)."""
    table = read(source, "cub100", "train")
    species = sorted(set(table["label"].to_pylist()))
    chosen = [
        name for index, name in enumerate(species) if held_out is None or held_out == (index % HELD_OUT_EVERY == 0)
    ]
    return table.filter(pc.is_in(table["label"], pa.array(chosen)))


def repeat(table: pa.Table, times: int) -> pa.Table:
    """The table several times over, with ids of their own."""
    ids = table["id"].to_pylist()
    copies = [table]
    for number in range(1, times):
        renamed = pa.array([f"{name}#{number}" for name in ids])
        copies.append(table.set_column(table.schema.get_field_index("id"), "id", renamed))
    return pa.concat_tables(copies)


def sample(table: pa.Table, count: int, seed: int) -> pa.Table:
    """A seeded sample without replacement."""
    rows = np.random.default_rng(seed).permutation(len(table))[:count]
    return table.take(pa.array(np.sort(rows)))


def title_only(table: pa.Table) -> pa.Table:
    """The table with the title as its only caption: the other caption fits hundreds of images."""
    return recaption(table, [own[:1] for own in table["captions"].to_pylist()])


def without_label(table: pa.Table) -> pa.Table:
    """The table without labels."""
    return relabel(table, [None] * len(table))


def make_tables(source: Path, folder: Path) -> dict[str, str]:
    """Write all tables of the example; name to path."""

    def flickr(split: str) -> pa.Table:
        return read(source, "flickr8k", split)

    def fashion(split: str) -> pa.Table:
        return read(source, "fashion", split)

    classes = repeated_titles(fashion("train"))
    validation_pairs = [flickr("val"), title_only(without_label(sample(fashion("val"), 1000, 0)))]
    tables = {
        "pairs": pa.concat_tables([without_label(flickr("train")), without_label(fashion("train"))]),
        "pairs-val": pa.concat_tables([without_label(validation_pairs[0]), validation_pairs[1]]),
        "tune": pa.concat_tables([repeat(birds(source, None), BIRD_REPEATS), classes]),
        "tune-sweep": pa.concat_tables([repeat(birds(source, False), BIRD_REPEATS), classes]),
        "birds-val": birds(source, True),
        "fashion-val": repeated_titles(fashion("val")),
        "grocery-val": read(source, "grocery", "val"),
        "birds": read(source, "cub100", "test"),
        "fashion": repeated_titles(fashion("test")),
        "grocery": read(source, "grocery"),
        "flickr-t2i": flickr("test"),
        "fashion-t2i": title_only(sample(fashion("test"), 1000, 0)),
        "flickr-t2i-val": flickr("val"),
        "fashion-t2i-val": validation_pairs[1],
    }
    return {name: write(table, folder / f"{name}.parquet") for name, table in tables.items()}
