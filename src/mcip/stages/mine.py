"""Mine pseudo-captions: for every image its most similar captions of a pool (Schall et al., SISAP 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip.core.choices import Precision, TransformName
from mcip.core.errors import ConfigError, DataError
from mcip.core.parameters import check_choices, recorded
from mcip.core.processes import processes
from mcip.stages.inputs import ColumnsInput, DataInput, ModelInput, open_model

if TYPE_CHECKING:
    from mcip.embeddings.mined_captions import MinedCaptions


def mine(
    data: DataInput,
    pool: DataInput,
    out: Path,
    model: ModelInput,
    *,
    trained_model: ModelInput | None = None,
    k: int = 20,
    threshold: float | None = None,
    quantile: float | None = None,
    split: str | None = None,
    columns: ColumnsInput | None = None,
    pool_columns: ColumnsInput | None = None,
    pool_filters: str | None = None,
    transform: TransformName = "model",
    embeddings: Path | None = None,
    batch_size: int = 256,
    image_block: int | None = None,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> MinedCaptions:
    """Mine pseudo-captions for the images of a table: the top k of a pool by cosine, kept above a threshold.

    Exact duplicates in the pool are dropped, the first one kept. Memory is bounded by the blocks, not by the pool
    (while duplicates are looked for, about 50 bytes a caption). It resumes after an interruption. Several processes,
    started by torchrun or accelerate launch, share the work, and a run may resume with another number of them.

    Args:
        data: The images: a folder of class folders, CSV, parquet, webdataset tars or a hub name.
        pool: The captions: a text file with one per line, CSV, parquet, webdataset tars, or hub:OWNER/NAME, a data set
            of the hub (see docs/pools.md).
        out: The folder of the captions artefact.
        model: The miner: what `mcip.load` takes. The threshold is a cosine in its space.
        trained_model: The model that will be tuned, where it is not the miner: its text tower embeds the mined
            captions.
        k: Captions per image at most.
        threshold: Keep pairs with a cosine of at least this.
        quantile: Instead of a cosine: drop this share of all mined pairs, the least similar ones.
        split: Only the images of this split.
        columns: Which of the images' columns are the table's, for example image=path,label=category.
        pool_columns: Which of the pool's columns holds the captions, for example caption=title.
        pool_filters: Which captions of the pool stay, out of english, names (none with a person's name), duplicates
            (none that differ in case, digits and punctuation only) and words=LEAST-MOST, with commas between them.
        transform: The model's own image transform, or "paper".
        embeddings: Where the embeddings of images and pool are kept for other runs; in `out` if not given.
        batch_size: Images or captions per forward pass.
        image_block: Images per block of the search, each of which reads the whole pool; if not given, 4,096 on a CPU,
            32,768 elsewhere.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The captions artefact, open; it is a path too.

    Raises:
        ConfigError: Both a threshold and a quantile are given, or one is out of range.
        DataError: The pool is empty, or no image can be read.

    Example:
        >>> mined = mcip.mine("products.csv", "captions.txt", "runs/captions", "ViT-B-16/openai")  # doctest: +SKIP
        >>> mined.captions[:3]  # doctest: +SKIP
    """
    check_choices(mine, locals())
    _check(k, image_block, threshold, quantile)
    from mcip.core.artefacts import Artefact
    from mcip.core.device import pick_device
    from mcip.data import read_captions, read_table
    from mcip.data.column_names import caption_column
    from mcip.data.pool_filters import PoolFilters
    from mcip.embeddings.encode import embed_captions, embed_images
    from mcip.embeddings.mined_captions import KIND, MinedCaptions
    from mcip.embeddings.mining import first_occurrences, images_folder, search_captions, write_mined

    out = Path(out)
    filters = None if pool_filters is None else PoolFilters.parse(pool_filters)
    target = pick_device(device)
    image_block = image_block or (4096 if target.type == "cpu" else 32_768)
    team = processes()
    miner = team.first_then_all(lambda: open_model(model, device=str(target)))
    trained = miner
    if trained_model is not None:
        trained = team.first_then_all(lambda: open_model(trained_model, device=str(target)))
    table = team.first_then_all(lambda: read_table(data, split=split, columns=columns))
    texts = team.first_then_all(lambda: read_captions(pool, caption_column(pool_columns)))
    read = len(texts)
    if filters is not None:
        texts = texts.select(filters.rows(texts["caption"]), keep_in_memory=True)
        if not len(texts):
            raise DataError(f"None of the {read:,} captions of the pool passes the filters {pool_filters!r}.")
    keep, pool_hash = first_occurrences(texts["caption"])
    unique = texts.select(keep) if len(keep) < len(texts) else texts
    made_from = recorded(
        mine, locals(), leave_out=("embeddings", "batch_size", "trained_model", "columns", "pool_columns"),
        data=table.images_fingerprint,
        pool=pool_hash, model=miner.fingerprint,
    )  # fmt: skip
    with Artefact.begin(out, KIND, made_from) as artefact:
        if not artefact.complete:
            store = Path(embeddings) if embeddings else out / "embeddings"
            images = embed_images(
                table, miner, images_folder(store, table, miner, transform), transform=transform, batch_size=batch_size,
                workers=workers, precision=precision, max_unreadable=max_unreadable,
            )  # fmt: skip
            if not len(images):
                raise DataError(f"None of the {len(table)} images of {table.name} can be read: none can be mined for.")
            captions = embed_captions(
                unique["caption"], miner, store / f"pool-{pool_hash[:12]}-{miner.fingerprint[:12]}",
                batch_size=batch_size, precision=precision, source="pool",
            )  # fmt: skip
            blocks = search_captions(images, captions, k, image_block, out / "search", target)
            facts = team.by_first(lambda: write_mined(out, blocks, images, unique, threshold, quantile))
            dropped = len(texts) - len(unique)
            artefact.finish(
                model=miner.source, pool=str(pool), dropped_duplicates=dropped, filtered=read - len(texts), **facts
            )
            _note(facts)
    mined = MinedCaptions(out)
    mined.text_embeddings(trained)
    return mined


def _check(k: int, image_block: int | None, threshold: float | None, quantile: float | None) -> None:
    if image_block is not None and image_block < 1:
        raise ConfigError(f"image_block is {image_block}: a block needs at least 1 image.")
    if k < 1:
        raise ConfigError(f"k is {k}: an image needs at least 1 caption to be mined.")
    if threshold is not None and quantile is not None:
        raise ConfigError("Both a threshold and a quantile are given: use one of them.")
    if quantile is not None and not 0 <= quantile < 1:
        raise ConfigError(f"quantile is {quantile}: it is a share, from 0 (keep all) to below 1.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}: it is a cosine, from -1 to 1.")


def _note(facts: dict[str, Any]) -> None:
    from mcip.core.progress import console

    histogram = facts["images_by_caption_count"]
    without, total = histogram[0], sum(histogram)
    mean = sum(count * images for count, images in enumerate(histogram)) / max(1, total)
    above = "" if facts["threshold"] is None else f" with a cosine of {facts['threshold']:.3f} or more"
    console.print(
        f"{total:,} images got {mean:.1f} captions each{above}, out of {facts['unique_captions']:,} different ones; "
        f"{without:,} images got none."
    )
