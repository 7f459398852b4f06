"""Embed images on a Ray cluster: CPU workers read and decode, model actors embed, every shard becomes a fragment.

Ray Data runs the stages and repeats what is lost with a node. The fragments, which nobody sees before, become rows of
the table in one commit. What is finished is noted beside the derived files, so that a killed run loses only the shards
that were under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mcip import models
from mcip.core.choices import Precision
from mcip.core.errors import ConfigError, ModelError
from mcip.core.optional import module
from mcip.core.progress import progress
from mcip.data.photo_metadata import PHOTO_COLUMNS
from mcip.data.transforms import ImageTransform
from mcip.models.onnx_model import exported_model
from mcip.retrieval.commits import check_fragments
from mcip.retrieval.embedder import embedder_of
from mcip.retrieval.fragment_journal import commit_noted, note_fragments
from mcip.retrieval.listing import Listing, read_image
from mcip.retrieval.metadata import has_facts
from mcip.retrieval.plan import Plan, plan
from mcip.retrieval.prefetch import Batch, Reader
from mcip.retrieval.sync import Changes, Options, check_share, finished_rows
from mcip.retrieval.table import IndexTable, open_table
from mcip.retrieval.vector_column import no_vectors, vectors_array

JOURNAL: Final = "fragments"
# Tasks that the cluster is given at most, so that its book-keeping stays small.
_TASKS: Final = 10_000
# Bytes that an actor takes beside the model: what it imports, and a batch.
_FRAMEWORK: Final = 2**29
# The share of a cluster's CPUs whose actors embed, where it has no GPU: embedding takes longer than decoding.
_EMBEDDING: Final = 0.75


def append_on_cluster(
    table: IndexTable,
    listing: Listing,
    model: models.Model,
    address: str,
    folder: Path,
    options: Options,
    before_change: Callable[[], None] = lambda: None,
) -> tuple[IndexTable, int]:
    """Embed on a cluster the images whose ids are not in the table, and add them.

    Images that have changed, whose content the table has, or that cannot be read are left to
    `mcip.retrieval.sync.update`. Every node must see the images, the table and the model at the same places.

    Args:
        table: The table; its schema has the listing's columns.
        listing: What it shall hold.
        model: The model that the table was made with.
        address: Of the cluster, as `ray.init` takes it: "auto", "local", "host:port", "ray://host:port".
        folder: Of the derived files.
        options: How; a fragment has `shard_rows` images.
        before_change: Called before the table changes; it may raise.

    Returns:
        The table's newest version, and how many images were added.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
        DataError: More images are unreadable than allowed.
    """
    journal = folder / JOURNAL
    table = commit_noted(table, journal, before_change)
    todo = plan(listing, table)
    new = [number for number in todo.fresh if listing.ids[number] not in todo.ids]
    if not new:
        return table, 0
    changes = Changes(kept=len(listing) - len(new))
    with _connected(address) as ray, progress(f"index {listing.name}", len(listing), "images", changes.kept) as advance:
        done = _stages(ray, table, listing, model, new, todo, options)
        for shard in done.iter_rows():
            changes.unreadable |= json.loads(shard["unreadable"])
            check_share(changes, listing, options.max_unreadable)
            if shard["rows"]:
                note_fragments(journal, table, json.loads(shard["fragments"]))
            changes.embedded += shard["rows"]
            advance(shard["rows"])
    check_share(changes, listing, options.max_unreadable, len(listing))
    return commit_noted(table, journal, before_change), changes.embedded


def _stages(
    ray: Any,
    table: IndexTable,
    listing: Listing,
    model: models.Model,
    new: Sequence[int],
    todo: Plan,
    options: Options,
) -> Any:
    """The work as a Ray data set: one row per shard, with its fragment."""
    identity = table.identity
    rows = max(options.batch_size, -(-len(new) // _TASKS))
    transform = embedder_of(identity, model).transform
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    actors = gpus or max(1, int(_EMBEDDING * resources.get("CPU", 1)))
    memory = _FRAMEWORK + 2 * sum(parameter.nbytes for parameter in model.clip.parameters())
    images = ray.data.from_arrow([_part(listing, new[at : at + rows]) for at in range(0, len(new), rows)])
    decoded = images.map_batches(
        _decode,
        batch_size=options.batch_size,
        batch_format="pyarrow",
        num_cpus=1,
        fn_kwargs={
            "transform": transform,
            "thumbnails": identity.thumbnails,
            "known": frozenset(todo.by_hash),
        },
    )
    embedded = decoded.map_batches(
        _Embedder,
        batch_size=options.batch_size,
        batch_format="pyarrow",
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
        # Stages with the same needs would be joined to one.
        memory=memory,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        fn_constructor_args=(table.uri, identity.model, options.precision),
    )
    return embedded.map_batches(
        _write, batch_size=options.shard_rows, batch_format="pyarrow", num_cpus=1, fn_kwargs={"uri": table.uri}
    )


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster, and disconnected at the end unless it was before."""
    # Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = module("ray")
    module("ray.data")
    connected = ray.is_initialized()
    if not connected:
        try:
            dashboard = {"include_dashboard": False} if address == "local" else {}
            ray.init(address, log_to_driver=False, logging_level="warning", **dashboard)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"There is no Ray cluster at {address!r} ({error}): start one with `ray start --head`, or say "
                "--ray local for one on this machine."
            ) from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _part(listing: Listing, numbers: Sequence[int]) -> pa.Table:
    """What a worker has to know of some images."""
    facts = {"id": listing.ids, "path": listing.paths, "stamp": listing.stamps}
    fields = {f"_{name}": pa.array([values[at] for at in numbers]) for name, values in facts.items()}
    metadata = listing.metadata.take(pa.array(numbers, pa.int64()))
    return pa.table(fields | {name: metadata[name] for name in metadata.column_names})


def _listing(rows: pa.Table) -> Listing:
    """The images that a worker has to do with, listed."""
    ids, paths, stamps = (rows[f"_{name}"].to_pylist() for name in ("id", "path", "stamp"))
    metadata = rows.select([name for name in rows.column_names if not name.startswith("_")])
    return Listing("", "", "", ids, paths, stamps, metadata, lambda number: read_image(paths[number]))


_DECODED: Final = pa.schema(
    [
        pa.field("_hash", pa.string()),
        pa.field("_pixels", pa.large_binary()),
        pa.field("_width", pa.int32()),
        pa.field("_height", pa.int32()),
        pa.field("_thumbnail", pa.binary()),
        pa.field("_facts", pa.struct(list(PHOTO_COLUMNS))),
        pa.field("_unreadable", pa.string()),
    ]
)


def _decode(rows: pa.Table, transform: Any, thumbnails: int, known: frozenset[str]) -> pa.Table:
    """Read and decode images; those of known content are left out."""
    torch.set_num_threads(1)
    listing = _listing(rows)
    reader = Reader(listing.content, transform, thumbnails, known, known, has_facts(listing.metadata.schema))
    batch = reader(list(range(rows.num_rows)))
    decoded: dict[int, tuple[Any, ...]] = {number: (None,) * 6 + (why,) for number, why in batch.unreadable.items()}
    for place, at in enumerate(batch.embed):
        pixels = batch.pixels[place].tobytes()
        facts = batch.thumbnails.get(at), batch.facts[at]
        decoded[batch.numbers[at]] = (batch.hashes[at], pixels, *batch.sizes[place], *facts, None)
    numbers = sorted(decoded)
    columns = zip(*(decoded[number] for number in numbers), strict=True) if numbers else [()] * len(_DECODED)
    kept = rows.take(pa.array(numbers, pa.int64()))
    for field, column in zip(_DECODED, columns, strict=True):
        kept = kept.append_column(field, pa.array(column, field.type))
    return kept


class _Embedder:
    """An actor that holds the model, and turns decoded images into rows of the table."""

    def __init__(self, uri: str, name: str, precision: Precision) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = models.load(exported_model(name), device=device)
        self.table = open_table(uri)
        self.embedder = embedder_of(self.table.identity, model, precision)
        if model.fingerprint != self.table.identity.fingerprint:
            raise ModelError(
                f"The model {name} of this node has other weights than the one that {uri} was made with: put the same "
                "one at this place on every node."
            )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows as they stand in the table, and `_unreadable`: why an image has no vector, or null."""
        readable = rows.filter(pc.is_null(rows["_unreadable"]))
        assert isinstance(self.embedder.transform, ImageTransform)
        count, side = readable.num_rows, self.embedder.transform.prepared_size
        pixels = b"".join(readable["_pixels"].to_pylist())
        batch = Batch(
            numbers=list(range(count)),
            hashes=readable["_hash"].to_pylist(),
            embed=list(range(count)),
            pixels=np.frombuffer(bytearray(pixels), np.uint8).reshape(count, 3, side, side),
            sizes=list(zip(readable["_width"].to_pylist(), readable["_height"].to_pylist(), strict=True)),
            thumbnails={at: small for at, small in enumerate(readable["_thumbnail"].to_pylist()) if small is not None},
            facts=readable["_facts"].to_pylist(),
        )
        found = finished_rows(batch, self.table, _listing(readable), self.embedder, Plan())
        lost = rows.filter(pc.is_valid(rows["_unreadable"]))
        empty = {field.name: pa.nulls(lost.num_rows, field.type) for field in found.schema}
        like = no_vectors(self.table.identity, self.table.codec)
        nothing = vectors_array(np.zeros((lost.num_rows, like.shape[1]), like.dtype))
        empty |= {"id": lost["_id"], "vector": nothing}
        schema = pa.schema([field.with_nullable(True) for field in found.schema])
        every = pa.concat_tables([found.cast(schema), pa.table(empty, schema=schema)])
        why = pa.chunked_array([pa.nulls(count, pa.string()), *lost["_unreadable"].chunks])
        return every.append_column("_unreadable", why)


def _write(rows: pa.Table, uri: str) -> pa.Table:
    """Write a fragment that is not yet part of the table."""
    lost = rows.filter(pc.is_valid(rows["_unreadable"]))
    unreadable = dict(zip(lost["id"].to_pylist(), lost["_unreadable"].to_pylist(), strict=True))
    kept = rows.filter(pc.is_null(rows["_unreadable"])).drop_columns(["_unreadable"])
    fragments: list[str] = []
    if kept.num_rows:
        table = open_table(uri)
        written = module("lance").fragment.write_fragments(
            kept.cast(table.schema), uri, schema=table.schema, mode="append", enable_stable_row_ids=True
        )
        check_fragments(uri, written)
        fragments = [json.dumps(fragment.to_json()) for fragment in written]
    return pa.table(
        {"fragments": [json.dumps(fragments)], "rows": [kept.num_rows], "unreadable": [json.dumps(unreadable)]}
    )
