"""Bring a table up to date with its source: embed what is new or has changed, delete what is gone, keep the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip import models
from mcip.core.choices import Precision, TransformName
from mcip.core.errors import DataError
from mcip.core.progress import progress
from mcip.data.transforms import ImageTransform
from mcip.embeddings.encode import encode_pixels
from mcip.retrieval.listing import Listing
from mcip.retrieval.prefetch import Batch, Reader, read_ahead
from mcip.retrieval.table import IndexTable, vectors_array, vectors_of

_ENOUGH = 100


@dataclass(frozen=True)
class Plan:
    """What has to be done for a table to hold what a listing lists.

    Attributes:
        fresh: Numbers of the pictures that are not in the table as they are now.
        present: The ids of the table.
        gone: The ids of the table that are not in the listing.
        by_hash: `_rowid` of a row for each content hash of the table: a picture with this content needs no embedding.
    """

    fresh: list[int]
    present: frozenset[str]
    gone: list[str]
    by_hash: dict[str, int]


@dataclass
class Changes:
    """What an update did.

    Attributes:
        embedded: Pictures that were embedded.
        reused: Pictures that were moved or whose metadata changed, so that their vectors could be taken over.
        removed: Rows that were deleted.
        kept: Rows that were left as they are.
        unreadable: Ids that could not be read, with the reason.
    """

    embedded: int = 0
    reused: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def plan(listing: Listing, table: IndexTable) -> Plan:
    """Compare a listing with the table."""
    rows = table.read(["id", "stamp", "hash"])
    ids = rows["id"].to_pylist()
    stamps = dict(zip(ids, rows["stamp"].to_pylist(), strict=True))
    fresh = [
        number
        for number, (name, stamp) in enumerate(zip(listing.ids, listing.stamps, strict=True))
        if stamps.get(name) != stamp
    ]
    listed = set(listing.ids)
    by_hash = dict(zip(rows["hash"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
    return Plan(fresh, frozenset(ids), [name for name in ids if name not in listed], by_hash)


def update(
    table: IndexTable,
    listing: Listing,
    model: models.Model,
    *,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    workers: int = 0,
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> tuple[IndexTable, Changes]:
    """Make the table hold what the listing lists; killed and started again, it goes on behind the last whole shard.

    Rows are deleted last, so that a moved picture finds its vector whenever the process is killed.

    Args:
        table: The table; its schema has the listing's columns.
        listing: What it shall hold.
        model: The model that the table was made with.
        batch_size: Pictures per forward pass.
        shard_rows: Pictures per commit.
        workers: Processes that read and decode; 0 does so in this one.
        precision: Of the forward pass.
        max_unreadable: The share of the pictures that may be unreadable.

    Returns:
        The table's newest version, and what was done.

    Raises:
        DataError: More pictures are unreadable than allowed. What was written stays.
    """
    before, todo = table, plan(listing, table)
    changes = Changes(kept=len(listing) - len(todo.fresh))
    name: TransformName = "paper" if table.identity.transform == "paper" else "model"
    reader = Reader(listing.content, model.transform(name), table.identity.thumbnails, set(todo.by_hash))
    shards = [todo.fresh[at : at + shard_rows] for at in range(0, len(todo.fresh), shard_rows)]
    parts = [[shard[at : at + batch_size] for at in range(0, len(shard), batch_size)] for shard in shards]
    batches = iter(read_ahead(reader, chain.from_iterable(parts), workers))
    with progress(f"index {listing.name}", len(listing), "images", changes.kept) as advance:
        for part in parts:
            rows: list[pa.Table] = []
            for numbers, batch in zip(part, batches, strict=False):
                changes.unreadable |= {listing.ids[number]: why for number, why in batch.unreadable.items()}
                check_share(changes, listing, max_unreadable)
                rows.append(finished_rows(batch, before, listing, model, reader.transform, todo, precision))
                changes.embedded += len(batch.embed)
                changes.reused += len(batch.numbers) - len(batch.embed)
                advance(len(numbers))
            table = _write(table, pa.concat_tables(rows), todo.present)
    check_share(changes, listing, max_unreadable, len(listing))
    # A picture that cannot be read any more is not the one that its old row describes.
    removed = [*todo.gone, *(name for name in changes.unreadable if name in todo.present)]
    changes.removed = len(removed)
    return table.delete(removed).tidy(), changes


def finished_rows(
    batch: Batch,
    before: IndexTable,
    listing: Listing,
    model: models.Model,
    transform: ImageTransform,
    todo: Plan,
    precision: Precision,
) -> pa.Table:
    """The finished rows of a batch: new vectors by the model, known ones from the table as it was before."""
    count, thumbnails = len(batch.numbers), before.identity.thumbnails
    vectors = np.empty((count, model.embed_dim), np.float16)
    columns: dict[str, list[Any]] = {name: [None] * count for name in ("width", "height", "thumbnail")}
    if batch.embed:
        vectors[batch.embed] = encode_pixels(model, transform.finish(batch.pixels.to(model.device)), precision)
        for at, (width, height) in zip(batch.embed, batch.sizes, strict=True):
            columns["width"][at], columns["height"][at] = width, height
        for at, small in zip(batch.embed, batch.thumbnails, strict=False):
            columns["thumbnail"][at] = small
    fresh = set(batch.embed)
    reused = [at for at in range(count) if at not in fresh]
    if reused:
        facts = ["width", "height", *(["thumbnail"] if thumbnails else [])]
        row_ids = np.array([todo.by_hash[batch.hashes[at]] for at in reused], np.int64)
        old = before.take(row_ids, ["vector", *facts])
        vectors[reused] = vectors_of(old["vector"])
        for name in facts:
            for at, value in zip(reused, old[name].to_pylist(), strict=True):
                columns[name][at] = value
    return _table(batch, listing, before.schema, vectors, columns)


def _table(
    batch: Batch, listing: Listing, schema: pa.Schema, vectors: NDArray[Any], columns: dict[str, list[Any]]
) -> pa.Table:
    numbers = batch.numbers
    made: dict[str, Any] = {
        "id": [listing.ids[number] for number in numbers],
        "vector": vectors_array(vectors),
        "path": [listing.paths[number] for number in numbers],
        "hash": batch.hashes,
        "stamp": [listing.stamps[number] for number in numbers],
        **columns,
    }
    metadata = listing.metadata.take(pa.array(numbers, pa.int64()))
    made |= {name: metadata[name] for name in metadata.column_names}
    arrays = [
        pa.array(made[field.name], field.type) if isinstance(made.get(field.name), list)
        else made[field.name].cast(field.type) if field.name in made
        else pa.nulls(len(numbers), field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def _write(table: IndexTable, rows: pa.Table, present: frozenset[str]) -> IndexTable:
    if rows.num_rows == 0:
        return table
    changed = any(name in present for name in rows["id"].to_pylist())
    return table.upsert(rows) if changed else table.append(rows)


def check_share(changes: Changes, listing: Listing, allowed: float, seen: int | None = None) -> None:
    """Stop if too many pictures are unreadable, of those that were seen, or of `seen`.

    Raises:
        DataError: They are.
    """
    bad = changes.unreadable
    count = max(_ENOUGH, changes.kept + changes.embedded + changes.reused + len(bad)) if seen is None else seen
    if len(bad) <= allowed * count:
        return
    first = "\n".join(f"  {name}: {why}" for name, why in list(bad.items())[:5])
    raise DataError(
        f"{len(bad)} of the {len(listing)} images of {listing.name} are unreadable, more than max_unreadable = "
        f"{allowed:g} allows:\n{first}\nRepair or remove them, or raise max_unreadable."
    )


def columns_for(table: IndexTable, metadata: Sequence[pa.Field]) -> IndexTable:
    """Give the table the columns of a listing that it lacks.

    Raises:
        DataError: A column has another type now.
    """
    present = {field.name: field.type for field in table.schema}
    for found in metadata:
        if found.name in present and present[found.name] != found.type:
            raise DataError(
                f"The column {found.name!r} of {table.uri} holds {present[found.name]}, but that of the source holds "
                f"{found.type} now. Rename it, or make a new index."
            )
    new = [found for found in metadata if found.name not in present]
    if not new:
        return table
    table.dataset.add_columns(pa.schema(new))
    return table.latest()
