"""Index images for searching: embed what is new, forget what is gone, and measure how well they are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mcip.core.choices import Decode, Precision, TransformName
from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.core.processes import check_one_process
from mcip.retrieval.ann.select import Ann
from mcip.stages.inputs import ColumnsInput, DataInput, IndexInput, ModelInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import pyarrow as pa

    from mcip.models import Model
    from mcip.retrieval.identity import Root
    from mcip.retrieval.indexed import Indexed
    from mcip.retrieval.listing import Listing
    from mcip.retrieval.sync import Changes, Options
    from mcip.retrieval.table import IndexTable

    Sources: TypeAlias = DataInput | Sequence[DataInput]
else:
    Sources = list[DataInput]

# Where the ids of what could not be read, and the files that are no images, are listed, beside the derived files.
REPORT = "not-indexed.json"


def index(
    data: Sources | None = None,
    db: IndexInput = "photos.lance",
    *,
    model: ModelInput | None = None,
    columns: ColumnsInput | None = None,
    transform: TransformName = "model",
    decode: Decode | None = None,
    thumbnails: int = 0,
    moved_to: list[str] | None = None,
    replace: bool = False,
    ann: Ann = "auto",
    recall: float = 0.95,
    check: bool = False,
    adapter: Path | None = None,
    undo: bool = False,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    workers: int = 0,
    ray: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 1.0,
    max_removed: float = 0.2,
    keep_hours: float = 24,
) -> Indexed:
    """Embed images into a Lance table, and make it quick to search.

    Run again, it embeds what is new or has changed, deletes what is gone, and knows moved images by their content.
    Killed at any moment, it resumes. One run at a time writes to an index; another one waits.

    Args:
        data: Folders, searched to their depths, what `mcip.read_table` takes, or URIs of object storage; what was
            indexed last time if not given. Ids of several begin with the names of their folders.
        db: The Lance table: a folder, or a URI of object storage.
        model: What `mcip.load` takes; the one that the index names if not given.
        columns: Which of a table's columns are image, id, label, ..., for example image=path,label=category; the index
            remembers them.
        transform: The model's own image transform, or "paper".
        decode: "fast" reads JPEGs several times faster, to almost the same pixels; "exact" to open_clip's, to the bit.
            That of the index if not given, "fast" for a new one.
        thumbnails: Largest side in pixels of the thumbnails kept in the table; 0 keeps those there are. They may be
            added to an index without.
        moved_to: Where what was indexed lies now, or OLD=NEW for one of several: nothing is embedded again.
        replace: Remove from the index what is not named in `data`.
        ann: How to search: exactly, in a graph in memory, or in an index on disk. "auto" chooses by size and memory.
        recall: Recall@10 that approximate search must reach, for queries by image and by text.
        check: Measure recall again; nothing is embedded.
        adapter: The folder of a run of `mcip adapt`: the vectors are multiplied by its matrix, in one commit and
            without reading an image; the index is then one of the adapted model.
        undo: With `adapter`: multiply by the inverse, back to the model that was adapted.
        batch_size: Images per forward pass.
        shard_rows: Images per commit.
        workers: Processes that read and decode images; 0 does so in this one.
        ray: A Ray cluster that embeds new images: "auto", "local", "host:port" or "ray://host:port". Every node must
            see the images, the table and the model at the same places.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error; they are counted and
            listed.
        max_removed: The share of the index that may be deleted because its images are gone or unreadable; all of a
            folder never may. 1 allows everything.
        keep_hours: Hours for which versions of the table before this one are kept for readers that have them open.

    Returns:
        The index, opened, with what was done; it is also the path of the table.

    Raises:
        DataError: There is nothing to index, too much of it is unreadable, or too much of the index would be deleted.
        ArtefactError: There is something else at `db`.
        ConfigError: A parameter does not fit the index that is there.
        ModelError: The index was made with another model.

    Example:
        >>> mcip.index("photos", "photos.lance", model="ViT-B-32/openai")  # doctest: +SKIP
    """
    check_one_process()
    import time
    from datetime import timedelta

    from mcip.core.files import write_json
    from mcip.data.column_names import columns_of, write_columns
    from mcip.retrieval.ann.cache import derived_folder
    from mcip.retrieval.cluster import append_on_cluster
    from mcip.retrieval.index import Index
    from mcip.retrieval.indexed import Indexed
    from mcip.retrieval.lock import write_lock
    from mcip.retrieval.plan import plan
    from mcip.retrieval.roots import list_roots
    from mcip.retrieval.sync import Options, begin, update
    from mcip.retrieval.table import open_table, table_exists

    _check_adapter(data, model, check, adapter, undo)
    options = Options(batch_size, shard_rows, workers, precision, max_unreadable, 1 if replace else max_removed)
    _check(thumbnails, recall, options, keep_hours)
    uri = _uri(db)
    if check:
        return Indexed(
            Index(uri, _as_name(model), device, None if ann == "auto" else ann, recall, recalibrate=True), None
        )
    if adapter is not None:
        _adapted(uri, adapter, undo, timedelta(hours=keep_hours))
        return Indexed(Index(uri, None, device, ann, recall), None)
    folder, start = derived_folder(uri), time.perf_counter()
    with write_lock(uri) as check_lock:
        table = open_table(uri) if table_exists(uri) else None
        sources = _listed(data)
        if table is None and not sources:
            raise ConfigError(f"There is no index at {uri} yet: say which images to index.")
        known = table.identity.roots if table else ()
        loaded = _model(table, model, uri, device)
        roots, listing = list_roots(known, sources, moved_to or [], replace, uri, write_columns(columns_of(columns)))
        if table is None:
            table = _create(uri, loaded, transform, decode or "fast", thumbnails, roots, listing.metadata.schema)
        table = _fit(table, loaded, transform, decode, thumbnails)
        table, todo = begin(table, listing, roots, options, check_lock)
        table, listing = _fit_columns(table, listing)
        added = 0
        if ray is not None:
            table, added = append_on_cluster(table, listing, loaded, ray, folder, options, check_lock)
            todo = plan(listing, table)
        table, changes = update(table, listing, loaded, todo, options, check_lock)
        changes.embedded, changes.kept = changes.embedded + added, changes.kept - added
        write_json(folder / REPORT, {"unreadable": changes.unreadable, "skipped": changes.skipped})
        _refuse_empty(table, listing.name, changes)
        table.tidy().forget_versions(timedelta(hours=keep_hours))
        seconds = time.perf_counter() - start
        _tell(changes, seconds, folder / REPORT)
    return Indexed(Index(uri, loaded, device, ann, recall), changes, seconds)


def _check(thumbnails: int, recall: float, options: Options, keep_hours: float) -> None:
    at_least = {
        "thumbnails": (thumbnails, 0), "batch_size": (options.batch_size, 1), "shard_rows": (options.shard_rows, 1),
        "workers": (options.workers, 0), "keep_hours": (keep_hours, 0),
    }  # fmt: skip
    for name, (value, least) in at_least.items():
        if value < least:
            raise ConfigError(f"{name} is {value:g}: it must be {least} or more.")
    shares = {"recall": recall, "max_unreadable": options.max_unreadable, "max_removed": options.max_removed}
    for name, share in shares.items():
        if not (0 <= share <= 1 and (share or name != "recall")):
            raise ConfigError(f"{name} is {share:g}: it must be from 0 to 1.")


def _check_adapter(
    data: Sources | None, model: ModelInput | None, check: bool, adapter: Path | None, undo: bool
) -> None:
    if undo and adapter is None:
        raise ConfigError("undo takes back what an adapter did: name its folder with --adapter.")
    if adapter is not None and (data or model is not None or check):
        raise ConfigError(
            "With an adapter only the vectors that are in the index are changed: leave the images, --model and --check "
            "out, and index new images by a command of their own."
        )


def _adapted(uri: str, adapter: Path, undo: bool, keep: timedelta) -> None:
    """Bring the index to the adapted model, or back."""
    from mcip.retrieval.adapted import Adapter
    from mcip.retrieval.lock import write_lock
    from mcip.retrieval.table import open_table

    with write_lock(uri) as check_lock:
        run, table = Adapter.open(adapter), open_table(uri)
        changed = run.change(table, undo, check_lock)
        table = table.latest()
        table.tidy().forget_versions(keep)
    done = "were multiplied by the matrix" if changed else "had been multiplied before by the matrix"
    _note(f"{len(table):,} vectors {done}{' inverse to that' if undo else ''} of {adapter}; no image was read.")


def _uri(db: IndexInput) -> str:
    """The one spelling of where the table is."""
    from mcip.retrieval.index import Index
    from mcip.retrieval.location import table_location

    return table_location(db.uri if isinstance(db, Index) else db)


def _listed(data: Sources | None) -> list[DataInput]:
    """One source, several or none, as a list."""
    if data is None:
        return []
    return list(data) if isinstance(data, list | tuple) else [data]


def _as_name(model: ModelInput | None) -> str | Model | None:
    return os.fspath(model) if isinstance(model, os.PathLike) else model


def _model(table: IndexTable | None, model: ModelInput | None, uri: str, device: str) -> Model:
    from mcip import models
    from mcip.core.device import pick_device
    from mcip.models.registry import TOYSHOP

    if table is None and model is None:
        raise ConfigError(f"There is no index at {uri} yet: say which model shall make it, with --model.")
    if isinstance(model, models.Model):
        loaded = model
    else:
        name = os.fspath(model) if model is not None else table.identity.model if table else ""
        loaded = models.load(name, device=str(pick_device(device)))
    if loaded.source == TOYSHOP:
        _note(
            "The model `toyshop` knows drawn toys only: on photographs its results are arbitrary. "
            "Index them with a model such as ViT-B-32/openai."
        )
    return loaded


def _create(
    uri: str,
    model: Model,
    transform: TransformName,
    decode: Decode,
    thumbnails: int,
    roots: tuple[Root, ...],
    metadata: pa.Schema,
) -> IndexTable:
    from mcip.retrieval.identity import Identity
    from mcip.retrieval.table import create_table, schema_of

    # A name by which the model is found from other folders too.
    name = str(model.folder.absolute()) if model.folder is not None else model.source
    identity = Identity.new(
        model=name, fingerprint=model.fingerprint, dim=model.embed_dim, transform=transform, decode=decode,
        thumbnails=thumbnails, roots=roots,
    )  # fmt: skip
    return create_table(uri, schema_of(identity, metadata))


def _fit(
    table: IndexTable, model: Model, transform: TransformName, decode: Decode | None, thumbnails: int
) -> IndexTable:
    """Check that the parameters fit a table that is there; thumbnails may be added to one without."""
    from mcip.retrieval.table import THUMBNAIL

    identity = table.identity
    if model.fingerprint != identity.fingerprint:
        raise ArtefactError(
            f"{table.uri} was made with the model {identity.model}, whose weights are not those of {model.source}: "
            "vectors of different models cannot be compared. Choose another --db for this model."
        )
    other_thumbnails = identity.thumbnails > 0 and thumbnails not in (identity.thumbnails, 0)
    if transform not in (identity.transform, "model") or other_thumbnails:
        raise ConfigError(
            f"{table.uri} was made with --transform {identity.transform} --thumbnails {identity.thumbnails}, not "
            f"--transform {transform} --thumbnails {thumbnails}. Leave them out, or choose another --db."
        )
    if decode not in (identity.decode, None):
        raise ConfigError(
            f"{table.uri} was made with --decode {identity.decode}, not {decode}: its images are all read in one way. "
            "Leave --decode out, or choose another --db."
        )
    if thumbnails in (identity.thumbnails, 0):
        return table
    return table.add_columns([THUMBNAIL]).change_identity(thumbnails=thumbnails)


def _fit_columns(table: IndexTable, listing: Listing) -> tuple[IndexTable, Listing]:
    """Bring the columns of a table and of a listing together."""
    from dataclasses import replace

    from mcip.retrieval.metadata import fit_types

    types = {column.name: column.type for column in table.schema}
    metadata, wider = fit_types(listing.metadata, types, listing.name)
    table = table.change_types(wider).add_columns(list(metadata.schema))
    return table, replace(listing, metadata=metadata)


def _refuse_empty(table: IndexTable, name: str, changes: Changes) -> None:
    if len(table) == 0:
        first = "\n".join(f"  {image}: {why}" for image, why in list(changes.unreadable.items())[:5])
        raise DataError(f"None of the {len(changes.unreadable):,} images of {name} can be read:\n{first}")


def _tell(changes: Changes, seconds: float, report: Path) -> None:
    """Say on stderr what was done."""
    from mcip.retrieval.folder import summary

    rate = f", {changes.embedded / seconds:,.0f} per second" if changes.embedded else ""
    _note(
        f"{changes.embedded:,} images embedded in {seconds:,.1f} s{rate}; {changes.reused:,} moved, touched or with "
        f"other metadata, {changes.removed:,} removed, {changes.kept:,} as they were."
    )
    if changes.unreadable:
        _note(f"{len(changes.unreadable):,} images could not be read.")
    if changes.skipped:
        _note(f"{len(changes.skipped):,} other files were left out: {summary(changes.skipped)}.")
    if changes.unreadable or changes.skipped:
        _note(f"They are listed in {report}.")


def _note(text: str) -> None:
    from mcip.core.progress import console

    console.print(text, markup=False, highlight=False, soft_wrap=True)
