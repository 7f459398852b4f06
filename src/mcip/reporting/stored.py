"""The embeddings that `mcip evaluate` kept beside its results."""

from __future__ import annotations

from pathlib import Path

from mcip.core.artefacts import Artefact
from mcip.core.errors import ArtefactError
from mcip.data import Table
from mcip.embeddings.store import KIND, Embeddings
from mcip.evaluation.encoders import captions_name, images_name
from mcip.evaluation.tasks import Task
from mcip.reporting.results import Results


def stored_images(results: Results, task: Task, table: Table) -> Embeddings:
    """The embeddings of a table's images that a model was evaluated with.

    Raises:
        ArtefactError: They are gone, or the table's images are not those that were embedded.
    """
    return _stored(results, images_name(table, results.fingerprint, task.transform, results.decode), "images")


def stored_captions(results: Results, name: str) -> Embeddings:
    """The embeddings of captions that a model was evaluated with; `name` is that of `Session.captions`.

    Raises:
        ArtefactError: They are gone, or the captions are not those that were embedded.
    """
    return _stored(results, captions_name(name, results.fingerprint), "captions")


def _stored(results: Results, name: str, content: str) -> Embeddings:
    folders: list[Path] = [store / name for store in results.stores]
    for folder in folders:
        if Artefact.is_one(folder, KIND):
            return Embeddings(folder)
    raise ArtefactError(
        f"There are no embeddings of these {content} by {results.model} ({folders[0]}): "
        f"they were removed, or the {content} have changed. Evaluate the model again."
    )
