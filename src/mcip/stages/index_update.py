"""One update of an index: what `mcip index` does once, and again and again where it watches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip.core.choices import Backend, Decode, TransformName
from mcip.core.errors import ArtefactError, ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import numpy as np
    from numpy.typing import NDArray

    from mcip.embeddings.compact import Codec
    from mcip.models import OnnxModel
    from mcip.retrieval.embedder import AnyModel
    from mcip.retrieval.identity import Root
    from mcip.retrieval.listing import Listing
    from mcip.retrieval.sync import Changes, Options
    from mcip.retrieval.table import IndexTable
    from mcip.stages.index_engine import Engine
    from mcip.stages.inputs import DataInput, ModelInput

# Where the ids of what could not be read, and the files that are no images, are listed, beside the derived files.
REPORT = "not-indexed.json"


@dataclass(frozen=True)
class Update:
    """What an update is to do; see the parameters of `mcip.index`, which have the same names.

    Attributes:
        uri: Of the table, resolved.
        sources: What to index; what was indexed last time if empty.
        columns: As `mcip.data.column_names.write_columns` writes them.
        keep: For how long versions of the table before this one are kept.
    """

    uri: str
    sources: Sequence[DataInput]
    model: ModelInput | OnnxModel | None
    columns: str
    transform: TransformName
    decode: Decode | None
    thumbnails: int
    moved_to: Sequence[str]
    replace: bool
    raw_pairs: bool | None
    ray: str | None
    device: str
    backend: Backend
    options: Options
    keep: timedelta
    engine: Engine
    embedding: str | None = None

    def again(self, model: AnyModel) -> Update:
        """The update that follows this one, with the model that is loaded: nothing is moved or replaced any more."""
        return dataclasses.replace(self, model=model, moved_to=[], replace=False)

    def run(self) -> tuple[AnyModel, Changes, float]:
        """Bring the index up to date; returns its model, what was done, and the seconds that it took."""
        import time

        from mcip.core.files import write_json
        from mcip.models.onnx_model import OnnxModel
        from mcip.retrieval.ann.cache import derived_folder
        from mcip.retrieval.codec import reuse_embedded
        from mcip.retrieval.embedder import embedder_of
        from mcip.retrieval.lock import write_lock
        from mcip.retrieval.plan import plan
        from mcip.retrieval.roots import list_roots
        from mcip.retrieval.sync import begin, update
        from mcip.retrieval.table import open_table, table_exists
        from mcip.stages.index_engine import load_vectors
        from mcip.stages.index_model import load_model

        uri, options = self.uri, self.options
        folder, start = derived_folder(uri), time.perf_counter()
        with write_lock(uri) as check_lock:
            table = open_table(uri) if table_exists(uri) else None
            if table is None and not self.sources:
                raise ConfigError(f"There is no index at {uri} yet: say which images to index.")
            self.engine.check(table)
            known = table.identity.roots if table else ()
            loaded = load_model(table, self)
            roots, listing = list_roots(
                known, self.sources, self.moved_to, self.replace, uri, self.columns, self.raw_pairs
            )
            embedded: dict[bytes, NDArray[np.float32]] = {}
            if table is None:
                table = _create(uri, loaded, self, roots, listing, embedded)
            table = _fit(table, loaded, self)
            table, todo = begin(table, listing, roots, options, check_lock)
            table, listing = _fit_columns(table, listing)
            added = 0
            if self.ray is not None:
                from mcip.retrieval.cluster import append_on_cluster

                assert not isinstance(loaded, OnnxModel)
                table, added = append_on_cluster(table, listing, loaded, self.ray, folder, options, check_lock)
                todo = plan(listing, table)
            embedder = reuse_embedded(embedder_of(table.identity, loaded, options.precision), embedded)
            table, changes = update(table, listing, embedder, todo, options, check_lock)
            changes.embedded, changes.kept = changes.embedded + added, changes.kept - added
            left_out: dict[str, Any] = {"unreadable": changes.unreadable, "skipped": changes.skipped | changes.closed}
            write_json(folder / REPORT, left_out)
            _refuse_empty(table, listing.name, changes)
            table = self.engine.record(table.tidy())
            table.forget_versions(self.keep)
            seconds = time.perf_counter() - start
            _tell(changes, seconds, folder / REPORT)
            load_vectors(table)
        return loaded, changes, seconds


def _create(
    uri: str,
    model: AnyModel,
    update: Update,
    roots: tuple[Root, ...],
    listing: Listing,
    embedded: dict[bytes, NDArray[np.float32]],
) -> IndexTable:
    from mcip.retrieval.codec import PLAIN, fit_codec, index_form
    from mcip.retrieval.embedder import backend_of, embedder_of
    from mcip.retrieval.identity import Identity
    from mcip.retrieval.table import create_table, schema_of
    from mcip.stages.index_model import recorded_name

    form, options = index_form(update.embedding or PLAIN), update.options
    codec: Codec | None = None
    if form.dim is not None and form.dim > model.embed_dim:
        raise ConfigError(f"embedding is {form}, but {model.source} has {model.embed_dim} dimensions.")
    identity = Identity.new(
        model=recorded_name(model, update.model), fingerprint=model.fingerprint, dim=form.dim or model.embed_dim,
        transform=update.transform, decode=update.decode or "fast", thumbnails=update.thumbnails, roots=roots,
        backend=backend_of(model), embedding=str(form),
    )  # fmt: skip
    if str(form) != PLAIN:
        embedder = embedder_of(identity, model, options.precision)
        codec = fit_codec(form, listing, embedder, options.batch_size, options.workers, embedded)
    return create_table(uri, schema_of(identity, listing.metadata.schema, codec))


def _fit(table: IndexTable, model: AnyModel, update: Update) -> IndexTable:
    """Check that the parameters fit a table that is there; thumbnails may be added to one without."""
    from mcip.retrieval.codec import index_form
    from mcip.retrieval.embedder import backend_of
    from mcip.retrieval.table import THUMBNAIL

    identity, transform, thumbnails = table.identity, update.transform, update.thumbnails
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
    if update.decode not in (identity.decode, None):
        raise ConfigError(
            f"{table.uri} was made with --decode {identity.decode}, not {update.decode}: its images are all read in "
            "one way. Leave --decode out, or choose another --db."
        )
    if update.embedding is not None and str(index_form(update.embedding)) != identity.embedding:
        raise ConfigError(
            f"{table.uri} was made with --embedding {identity.embedding}, not {update.embedding}: its vectors are all "
            "stored in one way. Leave --embedding out, or choose another --db."
        )
    if identity.backend != backend_of(model):
        table = table.change_identity(backend=backend_of(model))
    if thumbnails in (identity.thumbnails, 0):
        return table
    return table.add_columns([THUMBNAIL]).change_identity(thumbnails=thumbnails)


def _fit_columns(table: IndexTable, listing: Listing) -> tuple[IndexTable, Listing]:
    """Bring the columns of a table and of a listing together."""
    from dataclasses import replace

    from mcip.retrieval.metadata import fit_types
    from mcip.retrieval.table_columns import change_types

    types = {column.name: column.type for column in table.schema}
    metadata, wider = fit_types(listing.metadata, types, listing.name)
    table = change_types(table, wider).add_columns(list(metadata.schema))
    return table, replace(listing, metadata=metadata)


def _refuse_empty(table: IndexTable, name: str, changes: Changes) -> None:
    if len(table) == 0:
        first = "\n".join(f"  {image}: {why}" for image, why in list(changes.unreadable.items())[:5])
        raise DataError(f"None of the {len(changes.unreadable):,} images of {name} can be read:\n{first}")


def _tell(changes: Changes, seconds: float, report: Path) -> None:
    """Say on stderr what was done."""
    from mcip.retrieval.folder import summary

    speed = changes.embedded / seconds
    rate = f", {speed:,.0f} per second" if speed >= 10 else f", {speed:.1f} per second" if speed else ""
    note(
        f"{changes.embedded:,} images embedded in {seconds:,.1f} s{rate}; {changes.reused:,} moved, touched or with "
        f"other metadata, {changes.removed:,} removed, {changes.kept:,} as they were."
    )
    if changes.unreadable:
        note(f"{len(changes.unreadable):,} images could not be read.")
    if changes.skipped:
        note(f"{len(changes.skipped):,} other files were left out: {summary(changes.skipped)}.")
    if changes.closed:
        note(
            f"{len(changes.closed):,} files or folders cannot be read now, and what was indexed of them is kept: "
            f"{summary(changes.closed)}."
        )
    if changes.unreadable or changes.skipped or changes.closed:
        note(f"They are listed in {report}.")


def note(text: str) -> None:
    """Say something on stderr."""
    from mcip.core.progress import console

    console.print(text, markup=False, highlight=False, soft_wrap=True)
