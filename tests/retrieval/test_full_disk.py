"""The table of an index on a disk that fills up: no file that is cut off becomes part of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mcip.retrieval.ann.lance_disk import disk_search, grow_disk_index
from mcip.retrieval.identity import Identity
from mcip.retrieval.table import IndexTable, create_table, open_table, schema_of
from mcip.retrieval.table_columns import change_types, rewrite_vectors
from mcip.retrieval.vector_column import vectors_array
from tests.limits import with_small_files

DIM = 64


def rows(start: int, count: int) -> pa.Table:
    """Rows with the ids image-`start` and following."""
    vectors = np.random.default_rng(start).standard_normal((count, DIM))
    missing = {name: pa.nulls(count, kind) for name, kind in
               {"path": pa.string(), "width": pa.int32(), "height": pa.int32(), "hash": pa.string(),
                "stamp": pa.string()}.items()}  # fmt: skip
    ids = [f"image-{row}" for row in range(start, start + count)]
    price = pa.array(np.random.default_rng(start).integers(0, 2**62, count))
    return pa.table({"id": ids, "vector": vectors_array(vectors), **missing, "price": price})


def append(uri: str) -> object:
    return open_table(uri).append(rows(1000, 300))


def upsert(uri: str) -> object:
    return open_table(uri).upsert(rows(100, 300))


def compact(uri: str) -> object:
    return open_table(uri).tidy()


def cast(uri: str) -> object:
    return change_types(open_table(uri), {"price": pa.string()})


def negative(uri: str) -> object:
    return rewrite_vectors(open_table(uri), np.negative)


def disk_index(uri: str) -> object:
    return grow_disk_index(open_table(uri))


@pytest.fixture
def table(tmp_path: Path) -> IndexTable:
    """200 rows, of which 40 are deleted."""
    identity = Identity.new(model="toyshop", fingerprint="0", dim=DIM, transform="model", thumbnails=0)
    schema = schema_of(identity, pa.schema([("price", pa.int64())]))
    return (
        create_table(str(tmp_path / "table"), schema).append(rows(0, 200)).delete(f"image-{row}" for row in range(40))
    )


@pytest.mark.parametrize("change", [append, upsert, compact, cast, negative, disk_index])
def test_a_file_without_its_end_is_not_made_part_of_the_table(
    change: Callable[[str], object], table: IndexTable, tmp_path: Path
) -> None:
    before = content(table.uri)
    undisturbed = shutil.copytree(table.uri, tmp_path / "undisturbed")
    present = set(undisturbed.rglob("*"))
    change(str(undisturbed))
    largest = max(path.stat().st_size for path in set(undisturbed.rglob("*")) - present)
    # Lance draws the partitions of its index at random, and the size of its files with them.
    limit = largest // 2 if change is disk_index else largest - 1
    message = with_small_files(limit, change, table.uri, start="forkserver")
    assert message.startswith(f"The disk is full: could not write {table.uri}")
    assert content(table.uri) == before
    change(table.uri)
    assert content(table.uri) == content(str(undisturbed))


def test_an_index_on_disk_that_is_cut_off_is_built_anew(table: IndexTable) -> None:
    table = grow_disk_index(table)
    query = np.ones(DIM, np.float32)
    expected = disk_search(table, query, 5, width=0)[1]
    (file,) = Path(table.uri).rglob("auxiliary.idx")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    table = grow_disk_index(open_table(table.uri))
    assert set(disk_search(table, query, 5, width=12)[1]) == set(expected)


def content(uri: str) -> pa.Table:
    """All rows by their ids."""
    table = open_table(uri)
    return table.read(table.schema.names).sort_by("id").drop_columns(["_rowid"])
