"""Mine pseudo-captions: for every image its most similar captions of a pool (Schall et al., SISAP 2024)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from mcip import models
from mcip.core.artefacts import Artefact, atomic_write
from mcip.core.choices import Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.errors import ConfigError, DataError
from mcip.core.progress import console, progress
from mcip.core.topk import topk
from mcip.data import read_captions, read_table
from mcip.embeddings.encode import embed_captions, embed_images
from mcip.embeddings.mined_captions import CAPTIONS, IMAGES, KIND, MinedCaptions
from mcip.embeddings.store import Embeddings


def mine(
    data: str,
    pool: str,
    out: Path,
    model: str,
    *,
    trained_model: str | None = None,
    k: int = 20,
    threshold: float | None = None,
    quantile: float | None = None,
    split: str | None = None,
    transform: TransformName = "model",
    embeddings: Path | None = None,
    batch_size: int = 256,
    image_block: int = 4096,
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> Path:
    """Mine pseudo-captions for the images of a table: the top k of a pool by cosine, kept above a threshold.

    Exact duplicates in the pool are dropped, the first one kept. Memory is bounded by the blocks, not by the pool
    (while duplicates are looked for, about 50 bytes a caption). Started again after an interruption, it goes on.

    Args:
        data: The images: a folder of class folders, CSV, parquet, webdataset tars or a hub name.
        pool: The captions: a text file with one a line, CSV, parquet or webdataset tars.
        out: The folder of the captions artefact.
        model: The miner: what `mcip.load` takes. The threshold is a cosine in its space.
        trained_model: The model that will be tuned, where it is not the miner: its text tower embeds the mined
            captions.
        k: Captions per image at most.
        threshold: Keep pairs with a cosine of at least this.
        quantile: Instead of a cosine: drop this share of all mined pairs, the least similar ones.
        split: Only the images of this split.
        transform: The model's own image transform, or "paper".
        embeddings: Where the embeddings of images and pool are kept for other runs; in `out` if not given.
        batch_size: Images or captions per forward pass.
        image_block: Images per block of the search.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The artefact's folder.

    Raises:
        ConfigError: Both a threshold and a quantile are given, or one is out of range.
        DataError: The pool is empty, or no image can be read.
    """
    _check(k, image_block, threshold, quantile)
    out = Path(out)
    where = str(pick_device(device))
    miner = models.load(model, device=where)
    table = read_table(data, split=split)
    texts = read_captions(pool)
    keep, pool_hash = first_occurrences(texts["caption"])
    unique = texts.select(keep) if len(keep) < len(texts) else texts
    artefact = Artefact.begin(
        out,
        KIND,
        {
            "data": table.images_fingerprint, "pool": pool_hash, "model": miner.fingerprint,
            "transform": transform, "k": k, "threshold": threshold, "quantile": quantile, "image_block": image_block,
        },
    )  # fmt: skip
    trained = miner if trained_model is None else models.load(trained_model, device=where)
    if artefact.complete:
        console.print(f"{out} is complete: nothing to mine.")
        MinedCaptions(out).text_embeddings(trained)
        return out
    store = Path(embeddings) if embeddings else out / "embeddings"
    name = f"images-{table.images_fingerprint[:12]}-{miner.fingerprint[:12]}-{transform}"
    images = embed_images(
        table, miner, store / name, transform=transform,
        batch_size=batch_size, workers=workers, precision=precision, max_unreadable=max_unreadable,
    )  # fmt: skip
    if not len(images):
        raise DataError(f"None of the {len(table)} images of {table.name} can be read: there is nothing to mine for.")
    captions = embed_captions(
        unique["caption"], miner, store / f"pool-{pool_hash[:12]}-{miner.fingerprint[:12]}",
        batch_size=batch_size, precision=precision, source="pool",
    )  # fmt: skip
    _search(images, captions, k, image_block, out / "search", torch.device(where))
    facts = _write(out, images, unique, threshold, quantile)
    artefact.finish(model=miner.source, pool=pool, dropped_duplicates=len(texts) - len(unique), **facts)
    _say(facts)
    MinedCaptions(out).text_embeddings(trained)
    return out


def first_occurrences(texts: Sequence[str], slice_rows: int = 65_536) -> tuple[NDArray[np.int64], str]:
    """Find the first occurrence of each distinct string, reading `texts` in slices.

    Returns:
        The rows of the first occurrences, ascending, and the SHA-256 of what they hold.
    """
    digests = np.empty((len(texts), 2), np.uint64)
    for start in range(0, len(texts), slice_rows):
        part = b"".join(hashlib.blake2b(t.encode(), digest_size=16).digest() for t in texts[start : start + slice_rows])
        digests[start : start + slice_rows] = np.frombuffer(part, np.uint64).reshape(-1, 2)
    _, first = np.unique(digests.view("u8,u8").reshape(-1), return_index=True)
    rows = np.sort(first).astype(np.int64)
    return rows, hashlib.sha256(digests[rows].tobytes()).hexdigest()


def _check(k: int, image_block: int, threshold: float | None, quantile: float | None) -> None:
    if image_block < 1:
        raise ConfigError(f"image_block is {image_block}: a block needs at least 1 image.")
    if k < 1:
        raise ConfigError(f"k is {k}: an image needs at least 1 caption to be mined.")
    if threshold is not None and quantile is not None:
        raise ConfigError("Both a threshold and a quantile are given: use one of them.")
    if quantile is not None and not 0 <= quantile < 1:
        raise ConfigError(f"quantile is {quantile}: it is a share, from 0 (keep all) to below 1.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}: it is a cosine, from -1 to 1.")


def _search(
    images: Embeddings, captions: Embeddings, k: int, image_block: int, folder: Path, device: torch.device
) -> None:
    """Write the top k captions of each block of images; a block that is there already is not searched again."""
    blocks = [range(start, min(start + image_block, len(images))) for start in range(0, len(images), image_block)]
    with progress(f"mine among {len(captions):,} captions", len(images), "images") as advance:
        for number, rows in enumerate(blocks):
            path = folder / f"top-{number:05d}.parquet"
            if not path.exists():
                queries = torch.from_numpy(images.take(range(rows.start, rows.stop))).to(device)
                similarities, ids = (found.cpu().numpy() for found in topk(queries, captions.blocks(), k))
                found = pa.table({"captions": _lists(ids), "similarities": _lists(similarities)})
                with atomic_write(path) as temporary:
                    pq.write_table(found, temporary)
            advance(len(rows))


def _lists(array: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def _write(
    out: Path, images: Embeddings, unique: datasets.Dataset, threshold: float | None, quantile: float | None
) -> dict[str, Any]:
    found = pa.concat_tables([pq.read_table(path) for path in sorted((out / "search").glob("top-*.parquet"))])
    shape = (len(images), -1)
    ids = found["captions"].combine_chunks().flatten().to_numpy().reshape(shape)
    similarities = found["similarities"].combine_chunks().flatten().to_numpy().reshape(shape)
    if quantile is not None:
        threshold = float(np.quantile(similarities, quantile))
    kept = np.ones_like(ids, bool) if threshold is None else similarities >= threshold
    counts = kept.sum(1)
    used, renumbered = np.unique(ids[kept], return_inverse=True)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    table = pa.table(
        {
            "id": pa.array(images.ids, pa.string()),
            "captions": pa.ListArray.from_arrays(offsets, pa.array(renumbered.astype(np.int64))),
            "similarities": pa.ListArray.from_arrays(offsets, pa.array(similarities[kept].astype(np.float32))),
        }
    )
    texts = unique.select(used)["caption"][:] if len(used) else []
    for path, content in ((CAPTIONS, pa.table({"caption": pa.array(texts, pa.string())})), (IMAGES, table)):
        with atomic_write(out / path) as temporary:
            pq.write_table(content, temporary)
    return {
        "threshold": threshold,
        "unique_captions": len(used),
        "images_by_caption_count": np.bincount(counts, minlength=ids.shape[1] + 1).tolist(),
        "unreadable": images.unreadable,
    }


def _say(facts: dict[str, Any]) -> None:
    histogram = facts["images_by_caption_count"]
    without, total = histogram[0], sum(histogram)
    mean = sum(count * images for count, images in enumerate(histogram)) / max(1, total)
    above = "" if facts["threshold"] is None else f" with a cosine of {facts['threshold']:.3f} or more"
    console.print(
        f"{total:,} images got {mean:.1f} captions each{above}, out of {facts['unique_captions']:,} different ones; "
        f"{without:,} images got none."
    )
