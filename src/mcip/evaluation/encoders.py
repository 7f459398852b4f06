"""A model's embeddings for evaluation: computed once, stored, and used again by other tasks and later runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mcip.core.artefacts import Artefact
from mcip.core.choices import Decode, Precision, TransformName
from mcip.core.device import autocast
from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write
from mcip.core.progress import progress
from mcip.data import Table
from mcip.embeddings.encode import copy_embeddings, embed_captions, embed_images
from mcip.embeddings.store import KIND, Embeddings
from mcip.evaluation.task_data import Sources
from mcip.models import Model


@dataclass(frozen=True)
class Encoded:
    """The vectors of those images of a table that could be read.

    Attributes:
        shards: Arrays of unit vectors, together (N, D); they may be memory-mapped.
        rows: The table's row of each vector, shape (N,).
        query_shards: The same vectors as queries, where they differ from those of a gallery.
    """

    shards: Sequence[NDArray[Any]]
    rows: NDArray[np.int64]
    query_shards: Sequence[NDArray[Any]] | None = None

    def array(self) -> NDArray[np.float32]:
        """All vectors in memory, as a gallery's; float32 of shape (N, D)."""
        return np.concatenate([np.asarray(shard, np.float32) for shard in self.shards])

    def queries(self) -> NDArray[np.float32]:
        """All vectors in memory, as queries; float32 of shape (N, D)."""
        shards = self.shards if self.query_shards is None else self.query_shards
        return np.concatenate([np.asarray(shard, np.float32) for shard in shards])


class Encoder(Protocol):
    """Gives the vectors that tasks are measured on."""

    def images(self, table: Table, transform: TransformName) -> Encoded:
        """The vectors of a table's images."""

    def captions(self, captions: Sequence[str], name: str) -> NDArray[np.float32]:
        """The vectors of captions, (T, D); `name` tells those of one source from another's."""

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each class name, (C, D)."""


@dataclass(frozen=True)
class Session:
    """A model with a folder in which its embeddings are kept.

    Attributes:
        model: The model that is measured.
        store: The folder of the embeddings.
        batch_size: Images or captions per forward pass.
        workers: Processes that decode images.
        precision: Of the forward passes.
        max_unreadable: The share of images that may be unreadable.
        sources: Reads the data of the tasks.
        decode: How image files are read.
        same_tower: The fingerprint of a model with the same image tower that was measured on the same tasks before, or
            None.
        wholes: The whole table by the images of a part of it, and the transform, where tasks take both: the part's
            embeddings are taken from the whole's.
    """

    model: Model
    store: Path
    batch_size: int = 256
    workers: int = 0
    precision: Precision = "auto"
    max_unreadable: float = 0.01
    sources: Sources = field(default_factory=Sources)
    decode: Decode = "exact"
    same_tower: str | None = None
    wholes: Mapping[tuple[str, TransformName], Table] = field(default_factory=dict)

    def images(self, table: Table, transform: TransformName) -> Encoded:
        """The vectors of a table's images."""
        embeddings = self._embedded(table, transform)
        row_of = {image: row for row, image in enumerate(table.ids)}
        return Encoded(embeddings.shards, np.array([row_of[image] for image in embeddings.ids], np.int64))

    def _embedded(self, table: Table, transform: TransformName) -> Embeddings:
        def folder(of: Table, fingerprint: str) -> Path:
            return self.store / images_name(of, fingerprint, transform, self.decode)

        out, stored = folder(table, self.model.fingerprint), None
        if self.same_tower is not None and Artefact.is_one(folder(table, self.same_tower), KIND):
            stored = Embeddings(folder(table, self.same_tower))
        elif whole := self.wholes.get((table.images_fingerprint, transform)):
            stored = self._embedded(whole, transform)
        if stored is not None:
            return copy_embeddings(stored, table, self.model, out, self.max_unreadable)
        return embed_images(
            table, self.model, out, transform=transform, decode=self.decode, batch_size=self.batch_size,
            workers=self.workers, precision=self.precision, max_unreadable=self.max_unreadable,
        )  # fmt: skip

    def captions(self, captions: Sequence[str], name: str) -> NDArray[np.float32]:
        """The vectors of captions."""
        return embed_captions(
            captions, self.model, self.store / captions_name(name, self.model.fingerprint),
            batch_size=self.batch_size, precision=self.precision, source="captions",
        ).array()  # fmt: skip

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each class name, kept in a file, since 1,000 classes by 80 templates are many texts."""
        texts_hash = hashlib.sha256(repr((list(names.values()), list(templates))).encode()).hexdigest()
        path = self.store / f"classes-{texts_hash[:16]}-{self.model.fingerprint[:16]}.npy"
        if path.is_file():
            return _load_classes(path, (len(names), self.model.embed_dim))
        vectors = class_embeddings(self.model, list(names.values()), templates, self.batch_size, self.precision)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        return vectors


def _load_classes(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        stored: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtefactError(f"{path} is cut off or damaged ({error}). Remove it and evaluate again.") from error
    if stored.shape != shape or stored.dtype != np.float32:
        raise ArtefactError(f"{path} is damaged: it has the shape {stored.shape}, not {shape}. Remove it.")
    return stored


def images_name(table: Table, model_fingerprint: str, transform: str, decode: str) -> str:
    """The name, within a session's store, of the folder with a model's embeddings of a table's images."""
    return f"images-{table.images_fingerprint[:16]}-{model_fingerprint[:16]}-{transform}-{decode}"


def captions_name(name: str, model_fingerprint: str) -> str:
    """The same for the captions of the source `name`."""
    return f"captions-{name[:16]}-{model_fingerprint[:16]}"


def class_embeddings(
    model: Model,
    names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
    precision: Precision = "auto",
) -> NDArray[np.float32]:
    """The embedding of each class name: the mean over the templates of the normalised embeddings, renormalised.

    Equal names have equal embeddings: each is embedded once.

    Returns:
        float32 of shape (C, D).

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    section 3.1.4.
    """
    spoken = [name.replace("_", " ") for name in names]
    unique = list(dict.fromkeys(spoken))
    vectors = np.empty((len(unique), model.embed_dim), np.float32)
    step = max(1, batch_size // len(templates))
    # While the text tower is realigned, the model has no image tower to say where it is.
    device = model.text_parameters()[0].device
    with progress("embed class names", len(unique), "classes") as advance:
        for start in range(0, len(unique), step):
            some = unique[start : start + step]
            prompts = [template.replace("{}", name) for name in some for template in templates]
            with torch.inference_mode(), autocast(device, precision):
                encoded = model.encode(prompts, kind="text", batch_size=batch_size, convert_to_tensor=True)
            means = encoded.view(len(some), len(templates), -1).mean(1)
            vectors[start : start + len(some)] = F.normalize(means, dim=-1).cpu().numpy()
            advance(len(some))
    row_of = {name: row for row, name in enumerate(unique)}
    return vectors[[row_of[name] for name in spoken]]
