"""Bring a table up to date with its source: embed what is new or has changed, delete what is gone, keep the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.core.choices import Precision
from mcip.core.errors import DataError
from mcip.core.progress import Advance, progress
from mcip.retrieval.embedder import Embedder
from mcip.retrieval.identity import Root
from mcip.retrieval.listing import FOLDERS, Listing
from mcip.retrieval.metadata import has_facts, merged_facts
from mcip.retrieval.plan import Plan, plan
from mcip.retrieval.prefetch import Batch, Reader, read_ahead
from mcip.retrieval.removal import check_removal
from mcip.retrieval.table import IndexTable
from mcip.retrieval.vector_column import no_vectors, vectors_array, vectors_of

_ENOUGH = 100


@dataclass(frozen=True)
class Options:
    """How a table is brought up to date.

    Attributes:
        batch_size: Images per forward pass.
        shard_rows: Images per commit.
        workers: Processes that read and decode; 0 does so in this one.
        precision: Of the forward pass.
        max_unreadable: The share of the images that may be unreadable.
        max_removed: The share of the rows that may be deleted, see `mcip.retrieval.removal`.
    """

    batch_size: int = 256
    shard_rows: int = 16_384
    workers: int = 0
    precision: Precision = "auto"
    max_unreadable: float = 1.0
    max_removed: float = 0.2


@dataclass
class Changes:
    """What an update did.

    Attributes:
        embedded: Images that were embedded.
        reused: Images that were moved, copied, touched, or whose metadata changed: their vectors could be taken over.
        removed: Rows that were deleted.
        kept: Rows that were left as they are.
        unreadable: Ids that could not be read, with the reason.
        skipped: Files that are no images, with the reason.
        closed: Folders that cannot be listed and files that cannot be read now, with the reason: what was indexed of
            them was kept.
    """

    embedded: int = 0
    reused: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)


def begin(
    table: IndexTable, listing: Listing, roots: tuple[Root, ...], options: Options, before_change: Callable[[], None]
) -> tuple[IndexTable, Plan]:
    """Repair a table that has rows of one id, see what there is to do, and record what the table is the index of.

    Raises:
        DataError: The listing lacks so much of what the table has that nothing must be changed.
    """
    todo = plan(listing, table)
    if todo.surplus:
        before_change()
        table = table.delete_rows(todo.surplus)
    # Even were every new image a moved one, the others would be lost. A source that was moved keeps its ids.
    new = sum(listing.ids[number] not in todo.ids for number in todo.fresh)
    places = {root.prefix: root.location for root in table.identity.roots}
    gone = [name for name in todo.gone if name not in listing.superseded]
    moved = any(places.get(root.prefix, root.location) != root.location for root in roots)
    if moved or new == 0 or len(gone) - new > options.max_removed * len(todo.ids):
        check_removal(sorted(todo.ids), gone, options.max_removed, _are_files(roots), listing.name)
    if roots != table.identity.roots:
        before_change()
        table = table.change_identity(roots=[asdict(root) for root in roots])
    return table, replace(todo, surplus=[])


def update(
    table: IndexTable,
    listing: Listing,
    embedder: Embedder,
    todo: Plan,
    options: Options,
    before_change: Callable[[], None] = lambda: None,
) -> tuple[IndexTable, Changes]:
    """Make the table hold what the listing lists; killed and started again, it resumes behind the last whole shard.

    Rows are deleted last, so that a moved image finds its vector whenever the process is killed.

    Args:
        table: The table; its schema has the listing's columns.
        listing: What it shall hold.
        embedder: The model that the table was made with.
        todo: What has to be done, as `plan` says.
        options: How.
        before_change: Called before each change of the table; it may raise.

    Returns:
        The table's newest version, and what was done.

    Raises:
        DataError: More images are unreadable, or more rows would be deleted, than allowed. What was written stays.
    """
    kept = len(listing) - len(todo.fresh) - len(todo.relocated)
    changes = Changes(kept=kept, skipped=listing.skipped, closed=listing.closed)
    before = table
    with progress(f"index {listing.name}", len(listing), "images", changes.kept) as advance:
        shards = chain(
            _relocated_rows(before, listing, todo, options.shard_rows, changes, advance),
            _embedded_rows(before, listing, embedder, todo, options, changes, advance),
        )
        for rows in shards:
            if rows.num_rows:
                before_change()
                table = table.upsert(rows)
    check_share(changes, listing, options.max_unreadable, len(listing))
    removed, lost = _removed(table, todo, changes)
    lost = [name for name in lost if name not in listing.superseded]
    check_removal(sorted(todo.ids), lost, options.max_removed, _are_files(table.identity.roots), listing.name)
    if removed:
        before_change()
        table = table.delete(removed)
    changes.removed = len(removed)
    return table, changes


def _embedded_rows(
    before: IndexTable,
    listing: Listing,
    embedder: Embedder,
    todo: Plan,
    options: Options,
    changes: Changes,
    advance: Advance,
) -> Iterator[pa.Table]:
    """Read and embed the fresh images; yields the rows of a shard at a time, and counts in `changes`."""
    known = set(todo.by_hash), todo.thumbnailed
    facts = has_facts(listing.metadata.schema)
    reader = Reader(listing.content, embedder.transform, before.identity.thumbnails, *known, facts)
    size, step = options.shard_rows, options.batch_size
    shards = [todo.fresh[at : at + size] for at in range(0, len(todo.fresh), size)]
    parts = [[shard[at : at + step] for at in range(0, len(shard), step)] for shard in shards]
    batches = iter(read_ahead(reader, chain.from_iterable(parts), options.workers))
    for part in parts:
        rows: list[pa.Table] = []
        for numbers, batch in zip(part, batches, strict=False):
            changes.unreadable |= {listing.ids[number]: why for number, why in batch.unreadable.items()}
            check_share(changes, listing, options.max_unreadable)
            rows.append(finished_rows(batch, before, listing, embedder, todo))
            changes.embedded += len(batch.embed)
            changes.reused += len(batch.numbers) - len(batch.embed)
            advance(len(numbers))
        yield pa.concat_tables(rows)


def _relocated_rows(
    before: IndexTable, listing: Listing, todo: Plan, shard_rows: int, changes: Changes, advance: Advance
) -> Iterator[pa.Table]:
    """The rows of images that are at another path, with everything else as it was."""
    if not todo.relocated:
        return
    found = before.read(["id"])
    row_of = dict(zip(found["id"].to_pylist(), found["_rowid"].to_pylist(), strict=True))
    for at in range(0, len(todo.relocated), shard_rows):
        numbers = todo.relocated[at : at + shard_rows]
        row_ids = np.array([row_of[listing.ids[number]] for number in numbers], np.int64)
        rows = before.take(row_ids, before.schema.names)
        paths = pa.array([listing.paths[number] for number in numbers], pa.string())
        changes.reused += len(numbers)
        advance(len(numbers))
        yield rows.set_column(rows.schema.get_field_index("path"), "path", paths)


def _removed(table: IndexTable, todo: Plan, changes: Changes) -> tuple[list[str], list[str]]:
    """The ids to delete, and those of them whose images are nowhere else in the table.

    An image that cannot be read any more is not the one that its row describes.
    """
    removed = {*todo.gone, *(todo.ids & changes.unreadable.keys())}
    if not removed:
        return [], []
    rows = table.read(["id", "hash"])
    pairs = list(zip(rows["id"].to_pylist(), rows["hash"].to_pylist(), strict=True))
    left = {content for name, content in pairs if name not in removed}
    return sorted(removed), [name for name, content in pairs if name in removed and content not in left]


def _are_files(roots: Iterable[Root]) -> Callable[[str], bool]:
    """Whether an id is the path of a file: that of a folder or of object storage, and not of a table."""
    longest_first = sorted(roots, key=lambda root: -len(root.prefix))
    return lambda name: next((root.kind in FOLDERS for root in longest_first if name.startswith(root.prefix)), False)


def finished_rows(batch: Batch, before: IndexTable, listing: Listing, embedder: Embedder, todo: Plan) -> pa.Table:
    """The finished rows of a batch: new vectors by the model, known ones from the table as it was before."""
    count, thumbnails = len(batch.numbers), before.identity.thumbnails
    like = no_vectors(before.identity, before.codec)
    vectors = np.empty((count, like.shape[1]), like.dtype)
    columns: dict[str, list[Any]] = {name: [None] * count for name in ("width", "height", "thumbnail")}
    if batch.embed:
        fresh_vectors = embedder.embed(batch.pixels)
        vectors[batch.embed] = fresh_vectors if before.codec is None else before.codec.compress(fresh_vectors)
        for at, (width, height) in zip(batch.embed, batch.sizes, strict=True):
            columns["width"][at], columns["height"][at] = width, height
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
    for at, small in batch.thumbnails.items():
        columns["thumbnail"][at] = small
    return _table(batch, listing, before.schema, vectors, columns)


def _table(
    batch: Batch, listing: Listing, schema: pa.Schema, vectors: NDArray[Any], columns: dict[str, list[Any]]
) -> pa.Table:
    numbers = batch.numbers
    values: dict[str, Any] = {
        "id": [listing.ids[number] for number in numbers],
        "vector": vectors_array(vectors),
        "path": [listing.paths[number] for number in numbers],
        "hash": batch.hashes,
        "stamp": [listing.stamps[number] for number in numbers],
        **columns,
    }
    metadata = listing.metadata.take(pa.array(numbers, pa.int64()))
    values |= {name: metadata[name] for name in metadata.column_names}
    values |= merged_facts(batch.facts, metadata)
    arrays = [
        pa.array(values[field.name], field.type) if isinstance(values.get(field.name), list)
        else values[field.name].cast(field.type) if field.name in values
        else pa.nulls(len(numbers), field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def check_share(changes: Changes, listing: Listing, allowed: float, count: int | None = None) -> None:
    """Stop if too many images are unreadable, of those that were read so far, or of `count`.

    Raises:
        DataError: They are.
    """
    bad = changes.unreadable
    if count is None:
        count = max(_ENOUGH, changes.kept + changes.embedded + changes.reused + len(bad))
    if len(bad) <= allowed * count:
        return
    first = "\n".join(f"  {name}: {why}" for name, why in list(bad.items())[:5])
    raise DataError(
        f"{len(bad)} of the {len(listing)} images of {listing.name} are unreadable, more than max_unreadable = "
        f"{allowed:g} allows:\n{first}\nRepair or remove them, or raise max_unreadable."
    )
