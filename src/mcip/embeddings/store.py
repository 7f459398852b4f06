"""The embeddings artefact: L2-normalised vectors in shards, with the id of each row.

A shard is `vectors-00000.npy` and `rows-00000.parquet` (columns `id` and `unreadable`, the reason why a row has no
vector, or null), and last `shard-00000.json`, the mark with the hashes of both. Where embeddings are not stored as the
model gives them, `codec.npz` says how, see `mcip.embeddings.compact`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write, read_parquet
from mcip.core.parts import is_whole, mark_part
from mcip.embeddings.compact import Codec

KIND = "embeddings"
CODEC = "codec.npz"


def write_shard(
    folder: Path, shard: int, vectors: NDArray[Any], ids: Sequence[str], unreadable: Sequence[tuple[str, str]] = ()
) -> None:
    """Write one shard.

    Args:
        folder: The artefact's folder.
        shard: The shard's number.
        vectors: Shape (n, D).
        ids: The n ids of the vectors.
        unreadable: Ids without a vector, each with the reason.
    """
    mark, files = _files(folder, shard)
    write_array(files[0], vectors)
    rows = pa.table(
        {
            "id": pa.array([*ids, *(row for row, _ in unreadable)], pa.string()),
            "unreadable": pa.array([*([None] * len(ids)), *(reason for _, reason in unreadable)], pa.string()),
        }
    )
    with atomic_write(files[1]) as temporary:
        pq.write_table(rows, temporary)
    mark_part(mark, files)


def shard_is_whole(folder: Path, shard: int) -> bool:
    """Whether the shard with this number has been written, and is as it was written."""
    return is_whole(*_files(folder, shard))


def _files(folder: Path, shard: int) -> tuple[Path, list[Path]]:
    """The mark of a shard, and its files."""
    names = (f"vectors-{shard:05d}.npy", f"rows-{shard:05d}.parquet")
    return folder / f"shard-{shard:05d}.json", [folder / name for name in names]


def read_rows(folder: Path) -> pa.Table:
    """The columns `id` and `unreadable` of all shards that are there."""
    return pa.concat_tables([read_parquet(path) for path in sorted(folder.glob("rows-*.parquet"))])


class Embeddings(os.PathLike[str]):
    """A complete embeddings artefact, its vectors memory-mapped; it can stand wherever its path can.

    Attributes:
        shards: What is stored of the vectors, see `mcip.embeddings.compact.Codec.compress`.
        codec: How that is read; None where the vectors are stored as the model gave them.
        dim: Dimension d of the vectors that are read.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the artefact.

        Raises:
            ArtefactError: There is none in `folder`, or it is not complete.
        """
        self.artefact = Artefact.open(folder, KIND)
        self.folder = self.artefact.folder
        self._paths = sorted(self.folder.glob("vectors-*.npy"))
        self.shards: list[NDArray[Any]] = [map_array(path) for path in self._paths]
        self.offsets = np.cumsum([0, *(len(shard) for shard in self.shards)])
        self.dim = int(self.artefact.manifest["dim"])
        self.codec = Codec.load(self.folder / CODEC) if (self.folder / CODEC).is_file() else None

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        return os.fspath(self.folder)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def ids(self) -> list[str]:
        """The id of each vector, in order."""
        rows = read_rows(self.folder)
        ids: list[str] = rows.filter(rows["unreadable"].is_null())["id"].to_pylist()
        return ids

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """The ids that have no vector, with the reason."""
        rows = read_rows(self.folder)
        rows = rows.filter(rows["unreadable"].is_valid())
        return dict(zip(rows["id"].to_pylist(), rows["unreadable"].to_pylist(), strict=True))

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The shards in order: the number of the first row, and the vectors, memory-mapped or read by the codec.

        Each is mapped while it is looked at: pages that have been read count as memory of the process until then.
        """
        for start, path in zip(self.offsets[:-1].tolist(), self._paths, strict=True):
            yield start, self._vectors(map_array(path))

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """The vectors of these rows, float32 of shape (n, D)."""
        rows = np.asarray(rows, np.int64)
        out = np.empty((len(rows), self.dim), np.float32)
        shard_of = np.searchsorted(self.offsets, rows, side="right") - 1
        for shard in np.unique(shard_of):
            mine = shard_of == shard
            out[mine] = self._vectors(self.shards[shard][rows[mine] - self.offsets[shard]])
        return out

    def array(self) -> NDArray[np.float32]:
        """All vectors in memory, float32 of shape (N, D)."""
        return np.concatenate([np.asarray(self._vectors(shard), np.float32) for shard in self.shards])

    def queries(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Embeddings (n, D) of images or texts as they are compared with these: shortened, but not rounded.

        Returns:
            float32 of shape (n, d).
        """
        return np.asarray(vectors, np.float32) if self.codec is None else self.codec.project(vectors)

    def _vectors(self, codes: NDArray[Any]) -> NDArray[Any]:
        return codes if self.codec is None else self.codec.restore(codes)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a `.npy` file, atomically."""
    array = np.ascontiguousarray(array)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        # Through the Python file: `numpy.save` ignores a full disk while its last few kilobytes are written.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def map_array(path: Path) -> NDArray[Any]:
    """Memory-map the array of a `.npy` file.

    Raises:
        ArtefactError: It is missing, cut off or damaged.
    """
    try:
        # An empty array cannot be memory-mapped.
        mapped: NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtefactError(
            f"{path} is cut off or damaged ({error}). Remove its folder and run what makes it again."
        ) from error
    return mapped
