"""Mining pseudo-captions: for every image the most similar captions of a pool (Schall et al., SISAP 2024)."""

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

from mcip.core.files import atomic_write, read_parquet
from mcip.core.parts import is_whole, mark_part, missing_parts, part_name
from mcip.core.processes import processes
from mcip.core.progress import progress
from mcip.core.topk import topk
from mcip.data import Table
from mcip.embeddings.mined_captions import write_tables
from mcip.embeddings.store import Embeddings
from mcip.models import Model

_CAPTION_ROWS = 1_048_576


def images_folder(store: Path, table: Table, model: Model, transform: str = "model") -> Path:
    """Where `mcip mine` keeps a model's embeddings of a table's images, within the folder of its embeddings."""
    return store / f"images-{table.images_fingerprint[:12]}-{model.fingerprint[:12]}-{transform}"


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


def search_captions(
    images: Embeddings, captions: Embeddings, k: int, image_block: int, folder: Path, device: torch.device
) -> list[Path]:
    """Find the top k captions of each image, block by block; a block that is there already is not searched again.

    Several processes share the blocks.

    Returns:
        One parquet file per block of images, in order, with the columns `captions` (rows of `captions`, in descending
        order of similarity) and `similarities`.
    """
    blocks = [range(start, min(start + image_block, len(images))) for start in range(0, len(images), image_block)]
    paths = [folder / f"top-{rows.start:09d}-{rows.stop:09d}.parquet" for rows in blocks]
    team = processes()
    left = missing_parts(len(paths), lambda number: is_whole(paths[number].with_suffix(".json"), [paths[number]]))
    part = [left[place] for place in team.part(len(left))]
    done = len(images) - sum(len(blocks[number]) for number in left)
    total = done + sum(len(blocks[number]) for number in part)
    name = f"mine among {len(captions):,} captions{part_name(team)}"
    with progress(name, total, "images", done) as advance:
        for rows, path in [(blocks[number], paths[number]) for number in part]:
            queries = torch.from_numpy(images.take(range(rows.start, rows.stop))).to(device)
            similarities, ids = (found.cpu().numpy() for found in topk(queries, captions.blocks(), k))
            found = pa.table({"captions": _lists(ids), "similarities": _lists(similarities)})
            with atomic_write(path) as temporary:
                pq.write_table(found, temporary)
            mark_part(path.with_suffix(".json"), [path])
            advance(len(rows))
    team.barrier()
    team.by_first(lambda: _remove_others(folder, paths))
    return paths


def _remove_others(folder: Path, paths: list[Path]) -> None:
    """Remove what an earlier run with blocks of another size found."""
    for path in set(folder.glob("top-*.parquet")) - set(paths):
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)


def _lists(array: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def write_mined(
    out: Path,
    blocks: list[Path],
    images: Embeddings,
    texts: datasets.Dataset,
    threshold: float | None,
    quantile: float | None,
) -> dict[str, Any]:
    """Write the captions artefact's files: the captions that are kept, and per image which they are.

    Args:
        out: The artefact's folder.
        blocks: What `search_captions` wrote.
        images: The images' embeddings.
        texts: The pool, column `caption`.
        threshold: Keep pairs with a cosine of at least this.
        quantile: Instead: drop this share of all pairs, the least similar ones.

    Returns:
        What the artefact records: the threshold, the counts, and the unreadable images.
    """
    found = pa.concat_tables([read_parquet(path) for path in blocks])
    shape = (len(images), -1)
    ids = found["captions"].combine_chunks().flatten().to_numpy().reshape(shape)
    similarities = found["similarities"].combine_chunks().flatten().to_numpy().reshape(shape)
    if quantile is not None:
        threshold = float(np.quantile(similarities, quantile))
    kept = np.ones_like(ids, bool) if threshold is None else similarities >= threshold
    counts = kept.sum(1)
    used, renumbered = np.unique(ids[kept], return_inverse=True)
    pieces = (
        texts.select(used[start : start + _CAPTION_ROWS])["caption"][:] for start in range(0, len(used), _CAPTION_ROWS)
    )
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    write_tables(out, images.ids, offsets, renumbered.astype(np.int32), similarities[kept].astype(np.float32), pieces)
    return {
        "threshold": threshold,
        "unique_captions": len(used),
        "images_by_caption_count": np.bincount(counts, minlength=ids.shape[1] + 1).tolist(),
        "unreadable": images.unreadable,
    }
