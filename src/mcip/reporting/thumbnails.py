"""What a page shows of images: their thumbnails, and the embeddings by which they were ranked."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError, UnreadableImage
from mcip.data import Table
from mcip.data.thumbnails import thumbnail
from mcip.embeddings.store import KIND, Embeddings
from mcip.evaluation.encoders import captions_name, images_name
from mcip.evaluation.tasks import Task
from mcip.reporting.results import Results

THUMBNAIL_SIDE: Final = 160


def row_thumbnail(table: Table, row: int, side: int = THUMBNAIL_SIDE) -> str | None:
    """A row's image, at most `side` pixels wide and high, as a data URI; None where it cannot be read."""
    try:
        content = thumbnail(table.image(row), side)
    except UnreadableImage:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def stored_images(results: Results, task: Task, table: Table) -> Embeddings:
    """The embeddings of a table's images that a model was evaluated with.

    Raises:
        ArtefactError: They are gone, or the table's images are not those that were embedded.
    """
    return _stored(results, images_name(table, results.fingerprint, task.transform), "images")


def stored_captions(results: Results, name: str) -> Embeddings:
    """The embeddings of captions that a model was evaluated with; `name` is that of `Session.captions`.

    Raises:
        ArtefactError: They are gone, or the captions are not those that were embedded.
    """
    return _stored(results, captions_name(name, results.fingerprint), "captions")


def _stored(results: Results, name: str, what: str) -> Embeddings:
    folders: list[Path] = [store / name for store in results.stores]
    for folder in folders:
        if Artefact.is_one(folder, KIND):
            return Embeddings(folder)
    raise ArtefactError(
        f"There are no embeddings of these {what} by {results.model} ({folders[0]}): "
        f"they were removed, or the {what} have changed. Evaluate the model again."
    )
