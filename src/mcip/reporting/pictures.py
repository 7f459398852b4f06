"""Small pictures for a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from mcip.artefacts import Artefact
from mcip.data import Table
from mcip.embeddings import KIND, Embeddings
from mcip.errors import ArtefactError, UnreadableImage
from mcip.evaluation.measure import images_name
from mcip.evaluation.tasks import Task
from mcip.reporting.comparison import Results

THUMBNAIL = 160


def thumbnail(table: Table, row: int, size: int = THUMBNAIL) -> str | None:
    """A row's picture, at most `size` pixels wide and high, as a data URI; None where it cannot be read."""
    try:
        picture = table.image(row)
    except UnreadableImage:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def stored_embeddings(results: Results, task: Task, table: Table) -> Embeddings:
    """The embeddings that a model was evaluated with at a task.

    Raises:
        ArtefactError: They are gone, or the table's images are not those that were embedded.
    """
    name = images_name(table, results.fingerprint, task.transform)
    folders: list[Path] = [store / name for store in results.stores]
    for folder in folders:
        if Artefact.is_one(folder, KIND):
            return Embeddings(folder)
    raise ArtefactError(
        f"There are no embeddings of these images by {results.model} ({folders[0]}): "
        "they were removed, or the images have changed. Evaluate the model again."
    )
