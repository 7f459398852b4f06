"""Embed images or captions: a table and a model in, L2-normalised vectors in shards out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mcip.core.choices import Compile, Decode, Precision, TransformName
from mcip.core.parameters import check_choices
from mcip.core.processes import processes
from mcip.stages.inputs import ColumnsInput, DataInput, ModelInput, open_model

if TYPE_CHECKING:
    from mcip.embeddings import Embeddings

What: TypeAlias = Literal["images", "captions"]


def embed(
    data: DataInput,
    out: Path,
    model: ModelInput,
    *,
    what: What = "images",
    split: str | None = None,
    columns: ColumnsInput | None = None,
    transform: TransformName = "model",
    decode: Decode = "fast",
    batch_size: int = 256,
    shard_rows: int = 16_384,
    embedding: str = "float32",
    workers: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    compile: Compile = "auto",
    max_unreadable: float = 0.01,
) -> Embeddings:
    """Embed the images of a table, or the captions of a source, into shards of L2-normalised vectors.

    It resumes after an interruption with the shards that are not there. Several processes, started by torchrun or
    accelerate launch, share the shards, and a run may resume with another number of them.

    Args:
        data: A folder of class folders, CSV, parquet, webdataset tars or a hub name; for captions also a text file.
        out: The folder of the embeddings artefact.
        model: What `mcip.load` takes.
        what: "images" or "captions".
        split: Only the rows of this split.
        columns: Which of the source's columns are the table's, for example image=path,label=category.
        transform: The model's own image transform, or "paper".
        decode: "fast" reads JPEGs several times faster, to almost the same pixels; "exact" to open_clip's, to the bit.
        batch_size: Images or captions per forward pass.
        shard_rows: Rows per shard.
        embedding: How embeddings are stored: float32, float16, int8 or binary; dim=256 for 256 principal components,
            first=256 for the first 256 dimensions; or one of each, such as dim=256,int8. `Embeddings.queries` shortens
            what is compared with them.
        workers: Processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "auto" is bf16 on a GPU that has it, fp32 elsewhere.
        compile: Compile the image tower: "auto" on CUDA from 1,000 batches of images on, where that pays for the
            minutes it takes; "graphs" replays it as CUDA graphs too.
        max_unreadable: The share of images that may be unreadable before it stops with an error.

    Returns:
        The embeddings, open; they are a path too.

    Example:
        >>> embeddings = mcip.embed("photos", "runs/photos", "ViT-B-16/openai")  # doctest: +SKIP
        >>> embeddings.array().shape  # doctest: +SKIP
        (12000, 512)
    """
    check_choices(embed, locals())
    from mcip.core.device import pick_device
    from mcip.data import read_captions, read_table
    from mcip.data.column_names import caption_column
    from mcip.embeddings.encode import embed_captions, embed_images

    team = processes()
    loaded = team.first_then_all(lambda: open_model(model, device=str(pick_device(device))))
    if what == "captions":
        pool = team.first_then_all(lambda: read_captions(data, caption_column(columns)))
        return embed_captions(
            pool["caption"], loaded, out, batch_size=batch_size, shard_rows=shard_rows, embedding=embedding,
            precision=precision, source=str(data), announce=True,
        )  # fmt: skip
    return embed_images(
        team.first_then_all(lambda: read_table(data, split=split, columns=columns)), loaded, out, transform=transform,
        decode=decode, batch_size=batch_size, shard_rows=shard_rows, embedding=embedding, workers=workers,
        precision=precision, compile=compile, max_unreadable=max_unreadable, announce=True,
    )  # fmt: skip
