"""Index images for searching: embed what is new, forget what is gone, and measure how well they are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mcip.core.choices import Backend, Decode, Precision, TransformName
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices
from mcip.core.processes import check_one_process
from mcip.retrieval.ann.select import Ann
from mcip.stages.index_engine import EngineName
from mcip.stages.inputs import ColumnsInput, DataInput, IndexInput, ModelInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from mcip.models import Model
    from mcip.retrieval.indexed import Indexed
    from mcip.retrieval.sync import Options

    Sources: TypeAlias = DataInput | Sequence[DataInput]
else:
    Sources = list[DataInput]


def index(
    data: Sources | None = None,
    db: IndexInput = "photos.lance",
    *,
    model: ModelInput | None = None,
    columns: ColumnsInput | None = None,
    transform: TransformName = "model",
    decode: Decode | None = None,
    thumbnails: int = 0,
    embedding: str | None = None,
    moved_to: list[str] | None = None,
    replace: bool = False,
    ann: Ann = "auto",
    engine: EngineName | None = None,
    uri: str | None = None,
    collection: str | None = None,
    recall: float = 0.95,
    check: bool = False,
    adapter: Path | None = None,
    undo: bool = False,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    workers: int = 0,
    ray: str | None = None,
    device: str = "auto",
    backend: Backend = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 1.0,
    max_removed: float = 0.2,
    keep_hours: float = 24,
    raw_pairs: bool | None = None,
    watch: bool = False,
) -> Indexed:
    """Embed images into a Lance table, and make it quick to search.

    Run again, it embeds what is new or has changed, deletes what is gone, and knows moved images by their content.
    Killed at any moment, it resumes. One run at a time writes to an index; another one waits. Files of folders get the
    columns folder, taken, taken_offset, camera, lens, latitude, longitude, rating and keywords, by their EXIF and XMP.

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
        embedding: How vectors are stored: float16, int8 or binary; dim=256 for 256 principal components, first=256 for
            the first 256 dimensions; or one of each, such as dim=256,int8. As last time if not given, at first float16.
            Queries are shortened, not rounded. `mcip evaluate` with the same --embedding says what it costs.
        moved_to: Where what was indexed lies now, or OLD=NEW for one of several: nothing is embedded again.
        replace: Remove from the index what is not named in `data`.
        ann: How to search: exactly, in a graph in memory, or in an index on disk. "auto" chooses by size and memory.
        engine: What holds the vectors that are searched: "local", files of this machine, or "milvus", a server of
            Milvus; as last time if not given, at first "local".
        uri: Of Milvus, http://HOST:19530; as last time if not given. The index remembers it. User and password, or a
            token, are read from the environment variable MCIP_MILVUS_TOKEN and never kept; MCIP_MILVUS_URI stands in
            for the address where Milvus is reached by another one.
        collection: The collection of Milvus; as last time if not given, at first one of the index's own.
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
        backend: What embeds: "torch"; "onnx", on the CPU and without importing PyTorch, by an ONNX model of
            `mcip export`: the folder of --model or `onnx` in it, or beside the index as `INDEX.onnx`; "auto": as last
            time, at first "onnx" if --model is such a folder, else "torch". The index records it; a quantized model and
            others do not embed into one index.
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error; they are counted and
            listed.
        max_removed: The share of the index that may be deleted because its images are gone or unreadable; all of a
            folder never may. 1 allows everything.
        keep_hours: Hours for which versions of the table before this one are kept for readers that have them open.
        raw_pairs: Index camera RAW beside a JPEG or HEIC of the same name too; as last time if not given, at first not.
        watch: Go on until interrupted: update the index whenever the folders change, and once an hour.

    Returns:
        The index, opened, with what was done; it is also the path of the table.

    Raises:
        DataError: There is nothing to index, too much of it is unreadable, or too much of the index would be deleted.
        ArtefactError: There is something else at `db`.
        EngineError: Milvus does not answer, or the collection is not the index's.
        ConfigError: A parameter does not fit the index that is there.
        ModelError: The index was made with another model.

    Example:
        >>> mcip.index("photos", "photos.lance", model="ViT-B-32/openai")  # doctest: +SKIP
    """
    check_one_process()
    check_choices(index, locals())
    from datetime import timedelta

    from mcip.data.column_names import columns_of, write_columns
    from mcip.models.onnx_model import OnnxModel
    from mcip.retrieval.codec import check_engine, index_form
    from mcip.retrieval.index import Index
    from mcip.retrieval.indexed import Indexed
    from mcip.retrieval.sync import Options
    from mcip.stages.index_engine import Engine
    from mcip.stages.index_model import check_backend
    from mcip.stages.index_update import Update
    from mcip.stages.index_watch import check_watched, watch_index

    _check_adapter(data, model, check, adapter, undo)
    if (engine == "milvus" or uri or collection) and ann != "auto":
        raise ConfigError(f"Milvus searches by a graph of its own: leave --ann {ann} out.")
    options = Options(batch_size, shard_rows, workers, precision, max_unreadable, 1 if replace else max_removed)
    _check(thumbnails, recall, options, keep_hours)
    check_backend(backend, device, precision, ray)
    where = Engine(engine, uri, collection)
    if embedding is not None:
        check_engine(index_form(embedding), ann, milvus=engine == "milvus")
    location, sources = _uri(db), _listed(data)
    if check:
        return Indexed(
            Index(
                location, _as_name(model), device, None if ann == "auto" else ann, recall, recalibrate=True,
                backend=backend,
            ), None,
        )  # fmt: skip
    if adapter is not None:
        _adapted(location, adapter, undo, timedelta(hours=keep_hours))
        return Indexed(Index(location, None, device, ann, recall, backend=backend), None)
    if watch:
        check_watched(sources)
    update = Update(
        location, sources, model, write_columns(columns_of(columns)), transform, decode, thumbnails, moved_to or [],
        replace, raw_pairs, ray, device, backend, options, timedelta(hours=keep_hours), where, embedding,
    )  # fmt: skip
    loaded, changes, seconds = update.run()
    opened = loaded.folder if isinstance(loaded, OnnxModel) else loaded
    indexed = Indexed(Index(location, opened, device, ann, recall), changes, seconds)
    indexed.index.snapshot().prepare()
    if watch:
        watch_index(indexed.index, update.again(loaded))
    return indexed


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
    from mcip.stages.index_engine import load_vectors

    with write_lock(uri) as check_lock:
        run, table = Adapter.open(adapter), open_table(uri)
        changed = run.change(table, undo, check_lock)
        table = table.latest().tidy()
        table.forget_versions(keep)
        load_vectors(table)
    done = "were multiplied by the matrix" if changed else "had been multiplied before by the matrix"
    from mcip.stages.index_update import note

    note(f"{len(table):,} vectors {done}{' inverse to that' if undo else ''} of {adapter}; no image was read.")


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
