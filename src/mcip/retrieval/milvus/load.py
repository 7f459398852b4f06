"""Loading the vectors of a table into Milvus, fragment by fragment, and bringing them up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from mcip.core.errors import EngineError
from mcip.core.progress import progress
from mcip.retrieval.milvus.collection import Collection, Held
from mcip.retrieval.milvus.columns import FRAGMENT, ROW, rows_of
from mcip.retrieval.milvus.external import reads_tables, refresh
from mcip.retrieval.table import IndexTable

# Values of vectors that are sent at once: a message of Milvus has at most 64 MB.
_VALUES: Final = 2**21
# Rows or fragments that one expression names.
_NAMED: Final = 5000


def load(table: IndexTable) -> Held:
    """Bring the collection to a version of its table; the caller holds the table's write lock.

    A Milvus that can reads the table itself, see `mcip.retrieval.milvus.external`; otherwise it gets a copy. The
    fragments that are in are recorded one by one, so that a load that was killed resumes. Rows are added before others
    are deleted: what is in both versions can be found meanwhile.

    Raises:
        EngineError: Milvus fails, or does not hold what it was given.
    """
    assert table.identity.milvus is not None
    collection = Collection(table, table.identity.milvus)
    if reads_tables(collection, table):
        return refresh(table)
    held = collection.held
    columns = [[column.name, column.held] for column in collection.columns.values()]
    if held is None or held.columns != columns or held.external:
        held = collection.create()
    present = {fragment.fragment_id: [_files(fragment), fragment.num_deletions] for fragment in _fragments(table)}
    if held.version == table.version and not held.loading and held.fragments == present:
        return held
    collection.load()
    held.loading = table.version
    before = dict(held.fragments)
    _add(table, collection, held, present)
    for number, facts in before.items():
        if number in present and facts != present[number]:
            _delete_gone(table, collection, number)
    gone = [number for number in held.fragments if number not in present]
    for numbers in _parts(gone):
        collection.delete(f"{FRAGMENT} in {numbers}")
    collection.settle()
    _check(table, collection)
    held.version, held.rows, held.loading, held.fragments = table.version, len(table), 0, present
    collection.wait_for_index()
    collection.write(held)
    return held


def _fragments(table: IndexTable) -> list[Any]:
    return list(table.dataset.get_fragments())


def _files(fragment: Any) -> str:
    """What no other fragment of this number, nor this one with other values, has."""
    paths = ",".join(file.path for file in fragment.metadata.files)
    return hashlib.blake2b(paths.encode(), digest_size=6).hexdigest()


def _add(table: IndexTable, collection: Collection, held: Held, present: dict[int, list[Any]]) -> None:
    """Upsert the rows of the fragments that are new, or whose files are others."""
    new = [
        fragment
        for fragment in _fragments(table)
        if held.fragments.get(fragment.fragment_id, [""])[0] != present[fragment.fragment_id][0]
    ]
    names = ["id", "vector", *collection.columns]
    size = max(1, _VALUES // table.identity.dim)
    with progress("load into Milvus", sum(fragment.count_rows() for fragment in new), "images") as advance:
        for fragment in new:
            number = fragment.fragment_id
            held.fragments[number] = ["", 0]
            # This records also that the fragment before is in.
            collection.write(held)
            for batch in fragment.to_batches(columns=names, with_row_id=True, batch_size=size):
                collection.upsert(rows_of(batch, collection.columns, number))
                advance(batch.num_rows)
            held.fragments[number] = present[number]
    collection.write(held)


def _delete_gone(table: IndexTable, collection: Collection, number: int) -> None:
    """Delete the rows that are held as a fragment's and have gone from it."""
    fragment = table.dataset.get_fragment(number)
    live = set(fragment.to_table(columns=[], with_row_id=True)["_rowid"].to_pylist())
    for row_ids in _parts([row_id for row_id in collection.row_ids(number) if row_id not in live]):
        collection.delete(f"{FRAGMENT} == {number} and {ROW} in {row_ids}")


def _parts(numbers: list[int]) -> Iterable[list[int]]:
    for start in range(0, len(numbers), _NAMED):
        yield numbers[start : start + _NAMED]


def _check(table: IndexTable, collection: Collection) -> None:
    rows = collection.count(now=True)
    if rows != len(table):
        raise EngineError(
            f"{collection} holds {rows:,} images after loading, and {table.uri} has {len(table):,}: something else "
            "writes to it. Drop the collection in Milvus, and run `mcip index` again."
        )
