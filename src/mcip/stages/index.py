"""Index pictures for searching: embed what is new, forget what is gone, and measure how well they are found."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from mcip import models
from mcip.core.artefacts import write_json
from mcip.core.choices import Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.progress import console
from mcip.retrieval.ann.cache import derived_folder, locked
from mcip.retrieval.ann.select import Ann
from mcip.retrieval.cluster import append_on_cluster
from mcip.retrieval.index import Index
from mcip.retrieval.listing import Listing, list_images
from mcip.retrieval.sync import Changes, columns_for, update
from mcip.retrieval.table import Identity, IndexTable, create_table, open_table, schema_of, table_exists

UNREADABLE = "unreadable.json"


def index(
    photos: str | None = None,
    db: str = "photos.lance",
    *,
    model: str | None = None,
    transform: TransformName = "model",
    thumbnails: int = 0,
    ann: Ann = "auto",
    recall: float = 0.95,
    check: bool = False,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    workers: int = 0,
    ray: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> Path | str:
    """Embed pictures into a Lance table, and make it quick to search.

    Run again, it embeds what is new or has changed, deletes what is gone, and knows moved pictures by their content.
    Killed at any moment, it goes on. It ends by saying how big the index is, how fast, and how accurate.

    Args:
        photos: A folder, searched to its depths, what `mcip.read_table` takes, or a URI of object storage; what was
            indexed last time if not given.
        db: The Lance table: a folder, or a URI of object storage.
        model: What `mcip.load` takes; the one that the index names if not given.
        transform: The model's own image transform, or "paper".
        thumbnails: Largest side in pixels of the thumbnails kept in the table; 0 keeps none.
        ann: How to search: exactly, in a graph in memory, or in an index on disk. "auto" chooses by size and memory.
        recall: Recall@10 that approximate search must reach, for queries by image and by text.
        check: Measure recall again; nothing is embedded.
        batch_size: Pictures per forward pass.
        shard_rows: Pictures per commit.
        workers: Processes that read and decode pictures; 0 does so in this one.
        ray: A Ray cluster that embeds new pictures: "auto", "local", "host:port" or "ray://host:port". Every node must
            see the pictures, the table and the model at the same places.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of pictures that may be unreadable before it stops with an error.

    Returns:
        The table.

    Raises:
        DataError: There is nothing to index, or too much of it is unreadable.
        ArtefactError: There is something else at `db`.
        ConfigError: A parameter does not fit the index that is there.
        ModelError: The index was made with another model.
    """
    _check(thumbnails, recall, batch_size, shard_rows)
    if check:
        _say(Index(db, model, device, None if ann == "auto" else ann, recall, recalibrate=True))
        return _place(db)
    folder = derived_folder(db)
    start = time.perf_counter()
    with locked(folder / "indexing"):
        table = open_table(db) if table_exists(db) else None
        source = photos or (table.identity.source if table else None)
        if source is None:
            raise ConfigError(f"There is no index at {db} yet: say which pictures to index.")
        listing = list_images(source)
        loaded = _model(table, model, db, device)
        if table is None:
            table = _create(db, listing, loaded, source, transform, thumbnails)
        else:
            table = _prepare(table, loaded, photos, transform, thumbnails)
        table = columns_for(table, listing.metadata.schema)
        added = 0
        if ray is not None:
            table, added = append_on_cluster(
                table, listing, loaded, ray, folder, batch_size=batch_size, shard_rows=shard_rows,
                precision=precision, max_unreadable=max_unreadable,
            )  # fmt: skip
        table, changes = update(
            table, listing, loaded, batch_size=batch_size, shard_rows=shard_rows, workers=workers,
            precision=precision, max_unreadable=max_unreadable,
        )  # fmt: skip
        changes.embedded, changes.kept = changes.embedded + added, changes.kept - added
        write_json(folder / UNREADABLE, changes.unreadable)
    _say_changes(changes, time.perf_counter() - start, folder)
    _say(Index(db, loaded, device, ann, recall))
    return _place(db)


def _check(thumbnails: int, recall: float, batch_size: int, shard_rows: int) -> None:
    if thumbnails < 0 or not 0 < recall <= 1 or min(batch_size, shard_rows) < 1:
        raise ConfigError(
            f"thumbnails ({thumbnails}) must be 0 or more, recall ({recall}) above 0 and at most 1, batch_size "
            f"({batch_size}) and shard_rows ({shard_rows}) at least 1."
        )


def _model(table: IndexTable | None, model: str | None, db: str, device: str) -> models.Model:
    if table is None and model is None:
        raise ConfigError(f"There is no index at {db} yet: say which model shall make it, with --model.")
    name = model or (table.identity.model if table else "")
    return models.load(name, device=str(pick_device(device)))


def _create(
    db: str, listing: Listing, model: models.Model, source: str, transform: TransformName, thumbnails: int
) -> IndexTable:
    identity = Identity.new(
        model=_lasting(model), fingerprint=model.fingerprint, dim=model.embed_dim, transform=transform,
        source=_absolute(source), thumbnails=thumbnails,
    )  # fmt: skip
    return create_table(db, schema_of(identity, listing.metadata.schema))


def _prepare(
    table: IndexTable, model: models.Model, photos: str | None, transform: TransformName, thumbnails: int
) -> IndexTable:
    """Check that what is asked for fits a table that is there."""
    identity = table.identity
    if model.fingerprint != identity.fingerprint:
        raise ArtefactError(
            f"{table.uri} was made with the model {identity.model}, whose weights are not those of {model.source}: "
            "vectors of different models cannot be compared. Choose another --db for this model."
        )
    if transform not in (identity.transform, "model") or thumbnails not in (identity.thumbnails, 0):
        raise ConfigError(
            f"{table.uri} was made with --transform {identity.transform} --thumbnails {identity.thumbnails}, not "
            f"--transform {transform} --thumbnails {thumbnails}. Leave them out, or choose another --db."
        )
    source = identity.source if photos is None else _absolute(photos)
    if source == identity.source:
        return table
    if "://" in identity.source or Path(identity.source).exists():
        raise ConfigError(
            f"{table.uri} is the index of {identity.source}, and indexing {source} would delete all of that from it. "
            "Choose another --db."
        )
    return table.change_identity(source=source)


def _lasting(model: models.Model) -> str:
    """A name by which the model is found from other folders too."""
    return str(model.folder.absolute()) if model.folder is not None else model.source


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if "://" not in source and Path(source).exists() else source


def _place(db: str) -> Path | str:
    return db if "://" in db else Path(db)


def _say_changes(changes: Changes, seconds: float, folder: Path) -> None:
    rate = f", {changes.embedded / seconds:,.0f} a second" if changes.embedded else ""
    console.print(
        f"{changes.embedded:,} pictures embedded in {seconds:,.1f} s{rate}; {changes.reused:,} moved or changed only "
        f"beside the picture, {changes.removed:,} removed, {changes.kept:,} as they were.",
        markup=False,
    )
    if changes.unreadable:
        console.print(
            f"{len(changes.unreadable):,} could not be read; they are listed in {folder / UNREADABLE}.", markup=False
        )


def _say(index: Index) -> None:
    """How big, how fast, how accurate."""
    state = index.engine.state
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    if "://" not in index.uri:
        size += sum(path.stat().st_size for path in Path(index.uri).rglob("*") if path.is_file())
    console.print(
        f"{index.uri}: {len(index):,} pictures x {state.dim} dimensions, {size / 1e6:,.1f} MB in all, searched "
        f"by {_METHODS[state.method]}.",
        markup=False,
    )
    if not state.settings:
        console.print(f"  any query: exact, {_exact_milliseconds(index):.2f} ms", markup=False)
    for kind, setting in state.settings.items():
        how = f"width {setting.width}" if setting.width else "exact search, as no quicker one reaches the recall"
        console.print(
            f"  {kind} queries: recall@10 {setting.recall:.3f} at {setting.milliseconds:.2f} ms ({how}; "
            f"{setting.queries} queries, exact search {setting.exact_milliseconds:.2f} ms)",
            markup=False,
        )


def _exact_milliseconds(index: Index, queries: int = 11) -> float:
    """Median time of a query that is searched exactly."""
    seconds = []
    for query in index.engine.take(np.arange(len(index.engine.row_ids))[:queries]):
        start = time.perf_counter()
        index.engine.search(query, "image", 10)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


_METHODS = {"exact": "exact search", "graph": "an HNSW graph in memory", "disk": "Lance's index on disk"}
