"""Embed images or captions with a model: L2-normalised vectors in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mcip import models
from mcip.core.artefacts import Artefact
from mcip.core.choices import Compile, Decode, Precision, TransformName
from mcip.core.device import autocast
from mcip.core.errors import ConfigError, DataError
from mcip.core.parts import missing_parts, part_name
from mcip.core.processes import processes
from mcip.core.progress import Advance, console, progress
from mcip.data import Pixels, Table
from mcip.embeddings.compact import SAMPLED, Codec, Compact
from mcip.embeddings.half_weights import half_weights
from mcip.embeddings.store import CODEC, KIND, Embeddings, read_rows, shard_is_whole, write_shard
from mcip.models.compiled import compiled, pays

# Vectors, their ids, and the ids without a vector with the reason.
Shard: TypeAlias = tuple[NDArray[Any], list[str], list[tuple[str, str]]]


def embed_images(
    table: Table,
    model: models.Model,
    out: str | Path,
    *,
    transform: TransformName = "model",
    decode: Decode = "exact",
    batch_size: int = 256,
    shard_rows: int = 16_384,
    embedding: str = "float32",
    workers: int = 0,
    precision: Precision = "auto",
    compile: Compile = "off",
    max_unreadable: float = 0.01,
    announce: bool = False,
) -> Embeddings:
    """Embed the images of `table` with `model`; see `embed`. Unreadable images are listed in the artefact."""
    prepared = model.transform(transform, decode=decode)
    images = Pixels(table, prepared, workers=workers, cache_gb=0.0, max_unreadable=max_unreadable)
    ids = table.ids
    # Whether to compile follows from the whole table, so that a run that resumes does as before.
    compiles = pays(compile, model.device, -(-len(table) // batch_size))

    def encode(shards: list[range], advance: Advance) -> Iterator[Shard]:
        parts = [[rows[i : i + batch_size] for i in range(0, len(rows), batch_size)] for rows in shards]
        batches = images.batches(chain.from_iterable(parts))
        # A GPU has kernels, and memory, for one shape of batches.
        one_shape = compiles or model.device.type == "cuda"
        shape = min(batch_size, len(table)) if one_shape else 0
        with half_weights(model.clip.visual, model.device, precision):
            graphs = compile == "graphs"
            call = compiled_embedding(model, shape, precision, graphs) if compiles and shards else None
            for rows, part in zip(shards, parts, strict=True):
                kept: list[int] = []
                vectors = np.empty((len(rows), model.embed_dim), np.float32)
                for batch_rows, (pixels, readable) in zip(part, batches, strict=False):
                    if readable:
                        finished = prepared.finish(pixels.to(model.device))
                        found = encode_pixels(model, pad_batch(finished, shape), precision, call)[: len(readable)]
                        vectors[len(kept) : len(kept) + len(readable)] = found
                    kept += readable
                    advance(len(batch_rows))
                lost = [(ids[row], images.unreadable[row]) for row in rows if row in images.unreadable]
                yield vectors[: len(kept)], [ids[row] for row in kept], lost

    made_from = {
        "what": "images", "data": table.images_fingerprint, "model": model.fingerprint, "transform": transform,
        "decode": decode, "shard_rows": shard_rows, "embedding": embedding, "precision": precision, "compile": compile,
    }  # fmt: skip
    return _write_shards(out, made_from, len(table), shard_rows, encode, model, table.name, max_unreadable, announce)


def copy_embeddings(
    stored: Embeddings,
    table: Table,
    model: models.Model,
    out: str | Path,
    max_unreadable: float = 1.0,
    matrix: NDArray[np.float32] | None = None,
) -> Embeddings:
    """Write the embeddings of some rows of a table that is embedded already, as `embed_images` would of these rows.

    Args:
        stored: The embeddings of a table's images.
        table: Rows of it.
        model: The model that embedded them, or one with the same image tower; with a matrix, the one adapted by it.
        out: The folder of the artefact.
        max_unreadable: The share of the rows that may be unreadable.
        matrix: What `mcip adapt` trained, of shape (D, D), float32: each embedding becomes its product, normalised.
    """
    row_of = {name: row for row, name in enumerate(stored.ids)}
    ids, lost = table.ids, stored.unreadable

    def encode(shards: list[range], advance: Advance) -> Iterator[Shard]:
        for rows in shards:
            names = [ids[row] for row in rows]
            kept = [name for name in names if name in row_of]
            advance(len(rows))
            unreadable = [(name, lost[name]) for name in names if name in lost]
            vectors = stored.take([row_of[name] for name in kept])
            if matrix is not None:
                vectors = vectors @ matrix
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            yield vectors, kept, unreadable

    made_from = stored.artefact.manifest["made_from"]
    made_from = {**made_from, "data": table.images_fingerprint, "model": model.fingerprint}
    return _write_shards(
        out, made_from, len(table), made_from["shard_rows"], encode, model, table.name, max_unreadable
    )  # fmt: skip


def embed_captions(
    captions: Sequence[str],
    model: models.Model,
    out: str | Path,
    *,
    ids: Sequence[str] | None = None,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    embedding: str = "float32",
    precision: Precision = "auto",
    source: str = "captions",
    announce: bool = False,
) -> Embeddings:
    """Embed `captions` with `model`; see `embed`. The ids are the row numbers where none are given.

    `captions` may be a memory-mapped column: only one shard of it is in memory at a time.
    """

    def encode(shards: list[range], advance: Advance) -> Iterator[Shard]:
        for rows in shards:
            texts = list(captions[rows.start : rows.stop : rows.step])
            vectors = np.empty((len(rows), model.embed_dim), np.float32)
            # Texts of like length go together: a batch takes the time of its longest.
            order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
            for start in range(0, len(texts), batch_size):
                batch = order[start : start + batch_size]
                with torch.inference_mode(), autocast(model.device, precision):
                    some = [texts[row] for row in batch]
                    vectors[batch] = model.encode(some, kind="text", batch_size=batch_size)
                advance(len(batch))
            yield vectors, [str(row) if ids is None else ids[row] for row in rows], []

    made_from = {
        "what": "captions", "data": fingerprint_texts(captions), "model": model.fingerprint,
        "shard_rows": shard_rows, "embedding": embedding, "precision": precision,
    }  # fmt: skip
    return _write_shards(out, made_from, len(captions), shard_rows, encode, model, source, announce=announce)


def encode_pixels(
    model: models.Model,
    pixels: torch.Tensor,
    precision: Precision = "auto",
    call: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> NDArray[np.float32]:
    """Embed a finished batch of pixels; float32 vectors of unit length, shape (B, D), on the host.

    `call` is what stands for `model.embed_pixels` where that is compiled.
    """
    with torch.inference_mode(), autocast(pixels.device, precision):
        vectors = (call or model.embed_pixels)(pixels.contiguous(memory_format=torch.channels_last))
    array: NDArray[np.float32] = vectors.float().cpu().numpy()
    return array


def compiled_embedding(
    model: models.Model, rows: int, precision: Precision = "auto", graphs: bool = False
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """`model.embed_pixels` compiled for batches of so many rows, as CUDA graphs or not, or None where that fails."""
    shape = (rows, 3, model.image_size, model.image_size)
    return compiled(model.clip.visual, shape, model.device, precision, model.embed_pixels, graphs)


def pad_batch(pixels: torch.Tensor, rows: int) -> torch.Tensor:
    """The batch with empty images behind it, up to a number of rows."""
    return torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, rows - len(pixels))) if len(pixels) < rows else pixels


def fingerprint_texts(texts: Sequence[str]) -> str:
    """The SHA-256 over a sequence of strings, read in slices."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), 65_536):
        for text in texts[start : start + 65_536]:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _write_shards(
    out: str | Path,
    made_from: dict[str, Any],
    count: int,
    shard_rows: int,
    encode: Callable[[list[range], Advance], Iterator[Shard]],
    model: models.Model,
    source: str,
    max_unreadable: float = 1.0,
    announce: bool = False,
) -> Embeddings:
    team, compact = processes(), Compact.parse(made_from["embedding"])
    if compact.dim is not None and compact.dim > model.embed_dim:
        raise ConfigError(f"embedding is {compact}, but {model.source} has {model.embed_dim} dimensions.")
    with Artefact.begin(out, KIND, made_from, announce) as artefact:
        if not artefact.complete:
            folder = artefact.folder
            # Where there is nothing to embed there is still a shard, with no row.
            shards = [range(start, min(start + shard_rows, count)) for start in range(0, max(1, count), shard_rows)]
            codec, sampled = None, list[Shard]()
            if compact.changes:
                codec = team.first_then_all(lambda: _fitted(compact, folder, shards, encode, sampled))
            left = missing_parts(len(shards), lambda number: shard_is_whole(folder, number))
            done = count - sum(len(shards[number]) for number in left)
            part = [left[place] for place in team.part(len(left))]
            total = done + sum(len(shards[number]) for number in part)
            with progress(f"embed {source}{part_name(team)}", total, made_from["what"], done) as advance:
                encoded: Iterator[Shard]
                if sampled:
                    encoded = (sampled[number] for number in part)
                    advance(sum(len(shards[number]) for number in part))
                else:
                    encoded = encode([shards[number] for number in part], advance)
                for number, (vectors, names, lost) in zip(part, encoded, strict=True):
                    write_shard(folder, number, codec.compress(vectors) if codec else vectors, names, lost)
            team.barrier()
            team.by_first(lambda: _check_share(folder, count, source, max_unreadable))
            artefact.finish(model=model.source, source=source, dim=compact.dim or model.embed_dim, rows=count)
    embeddings = Embeddings(out)
    if embeddings.unreadable:
        console.print(
            f"{len(embeddings.unreadable)} of {count} images could not be read; they are listed in {out}.", markup=False
        )
    return embeddings


def _fitted(
    compact: Compact,
    folder: Path,
    shards: list[range],
    encode: Callable[[list[range], Advance], Iterator[Shard]],
    sampled: list[Shard],
) -> Codec:
    """The codec of an artefact, fitted to embeddings of rows spread over all of them before the first shard is made.

    A sample of all rows is embedded shard by shard and appended to `sampled`, so that none is embedded twice.
    """
    path, count = folder / CODEC, shards[-1].stop
    if not path.is_file():
        rows = shards if count <= SAMPLED else [range(0, count, -(-count // SAMPLED))]
        with progress(f"embed a sample to fit {compact}", sum(map(len, rows)), "rows") as advance:
            embedded = list(encode(rows, advance))
        Codec.fit(compact, np.concatenate([vectors for vectors, _, _ in embedded])).save(path)
        if rows is shards:
            sampled += embedded
    return Codec.load(path)


def _check_share(folder: Path, count: int, source: str, max_unreadable: float) -> None:
    """Stop if too many images are unreadable, those of shards that an earlier run wrote counted too."""
    rows = read_rows(folder)
    lost = rows.filter(rows["unreadable"].is_valid()).to_pylist()
    if len(lost) > max_unreadable * count:
        raise DataError(
            f"{len(lost)} of the {count} images of {source} are unreadable, more than max_unreadable = "
            f"{max_unreadable:g} allows; the first is {lost[0]['id']}: {lost[0]['unreadable']}. "
            "Repair or remove them, or raise max_unreadable."
        )
