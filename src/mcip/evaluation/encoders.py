"""A model's embeddings while it is evaluated: made once, stored, and used again by other tasks and other runs."""

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

from mcip.core.artefacts import atomic_write
from mcip.core.choices import Precision, TransformName
from mcip.core.device import autocast
from mcip.core.progress import progress
from mcip.data import Table
from mcip.embeddings.encode import embed_captions, embed_images
from mcip.evaluation.task_data import Sources
from mcip.models import Model


@dataclass(frozen=True)
class Encoded:
    """The vectors of those images of a table that could be read.

    Attributes:
        shards: Arrays of unit vectors, together (N, D); they may be memory-mapped.
        rows: The table's row of each vector, shape (N,).
    """

    shards: Sequence[NDArray[Any]]
    rows: NDArray[np.int64]

    def array(self) -> NDArray[np.float32]:
        """All vectors in memory, float32 of shape (N, D)."""
        return np.concatenate([np.asarray(shard, np.float32) for shard in self.shards])


class Encoder(Protocol):
    """Whatever gives the vectors that tasks are measured on."""

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
    """

    model: Model
    store: Path
    batch_size: int = 256
    workers: int = 0
    precision: Precision = "auto"
    max_unreadable: float = 0.01
    sources: Sources = field(default_factory=Sources)

    def images(self, table: Table, transform: TransformName) -> Encoded:
        """The vectors of a table's images."""
        embeddings = embed_images(
            table, self.model, self.store / images_name(table, self.model.fingerprint, transform), transform=transform,
            batch_size=self.batch_size, workers=self.workers, precision=self.precision,
            max_unreadable=self.max_unreadable,
        )  # fmt: skip
        row_of = {image: row for row, image in enumerate(table.ids)}
        return Encoded(embeddings.shards, np.array([row_of[image] for image in embeddings.ids], np.int64))

    def captions(self, captions: Sequence[str], name: str) -> NDArray[np.float32]:
        """The vectors of captions."""
        return embed_captions(
            captions, self.model, self.store / captions_name(name, self.model.fingerprint),
            batch_size=self.batch_size, precision=self.precision, source="captions",
        ).array()  # fmt: skip

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each class name, kept in a file, since 1,000 classes by 80 templates are many texts."""
        asked = hashlib.sha256(repr((list(names.values()), list(templates))).encode()).hexdigest()
        path = self.store / f"classes-{asked[:16]}-{self.model.fingerprint[:16]}.npy"
        if path.is_file():
            stored: NDArray[np.float32] = np.load(path, allow_pickle=False)
            return stored
        made = class_embeddings(self.model, list(names.values()), templates, self.batch_size, self.precision)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        return made


def images_name(table: Table, model_fingerprint: str, transform: str) -> str:
    """The name, within a session's store, of the folder with a model's embeddings of a table's images."""
    return f"images-{table.images_fingerprint[:16]}-{model_fingerprint[:16]}-{transform}"


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

    Returns:
        float32 of shape (C, D).

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
    section 3.1.4.
    """
    made = np.empty((len(names), model.embed_dim), np.float32)
    step = max(1, batch_size // len(templates))
    # While the text tower is realigned, the model has no image tower to say where it is.
    device = model.text_parameters()[0].device
    with progress("embed class names", len(names), "classes") as advance:
        for start in range(0, len(names), step):
            some = names[start : start + step]
            prompts = [template.replace("{}", name.replace("_", " ")) for name in some for template in templates]
            with torch.inference_mode(), autocast(device, precision):
                encoded = model.encode(prompts, kind="text", batch_size=batch_size, convert_to_tensor=True)
            means = encoded.view(len(some), len(templates), -1).mean(1)
            made[start : start + len(some)] = F.normalize(means, dim=-1).cpu().numpy()
            advance(len(some))
    return made
