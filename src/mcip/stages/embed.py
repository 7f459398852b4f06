"""Embed images or captions: a table and a model in, L2-normalised vectors in shards out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from mcip import models
from mcip.core.artefacts import Artefact
from mcip.core.choices import Dtype, Precision, TransformName
from mcip.core.device import pick_device
from mcip.core.progress import console
from mcip.data import read_captions, read_table
from mcip.embeddings.encode import embed_captions, embed_images
from mcip.embeddings.store import KIND

What: TypeAlias = Literal["images", "captions"]


def embed(
    data: str,
    out: Path,
    model: str,
    *,
    what: What = "images",
    split: str | None = None,
    transform: TransformName = "model",
    batch_size: int = 256,
    shard_rows: int = 16_384,
    dtype: Dtype = "float32",
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    max_unreadable: float = 0.01,
) -> Path:
    """Embed the images of a table, or the captions of a source, into shards of L2-normalised vectors.

    Started again after an interruption, it goes on with the first shard that is not there.

    Args:
        data: A folder of class folders, CSV, parquet, webdataset tars or a hub name; for captions also a text file.
        out: The folder of the embeddings artefact.
        model: What `mcip.load` takes.
        what: "images" or "captions".
        split: Only the rows of this split.
        transform: The model's own image transform, or "paper".
        batch_size: Images or captions per forward pass.
        shard_rows: Rows per shard.
        dtype: How vectors are stored.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The artefact's folder.
    """
    complete = Artefact.is_one(out, KIND) and Artefact.open(out, KIND, complete=False).complete
    loaded = models.load(model, device=str(pick_device(device)))
    if what == "captions":
        captions = read_captions(data)
        embed_captions(
            captions["caption"], loaded, out, batch_size=batch_size, shard_rows=shard_rows, dtype=dtype,
            precision=precision, source=str(data),
        )  # fmt: skip
    else:
        table = read_table(data, split=split)
        embed_images(
            table, loaded, out, transform=transform, batch_size=batch_size, shard_rows=shard_rows, dtype=dtype,
            workers=workers, precision=precision, max_unreadable=max_unreadable,
        )  # fmt: skip
    if complete:
        console.print(f"{out} is complete: nothing to embed.")
    return Path(out)
