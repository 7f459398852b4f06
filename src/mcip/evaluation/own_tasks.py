"""The tasks that a table allows, by its labels, its captions and its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.evaluation.tasks import Task

# Labels are names of classes where they are few and short; else they are titles or numbers of single products.
MAX_CLASSES: Final = 100
_MAX_WORDS: Final = 6


def own_tasks(
    table: Table,
    data: str,
    split: str | None = None,
    index_split: str | None = None,
    index_data: str | None = None,
    columns: str | None = None,
) -> tuple[list[Task], tuple[dict[str, Any], ...]]:
    """The tasks of the suite "own".

    Image to image where a label has several images; k-NN where there are labels and rows that vote; zero-shot where the
    labels are names of classes: 2 to 100 of them, each of two images or more on average, of letters and of 6 words at
    most; text to image and image to text where there are captions.

    Args:
        table: The rows of `split`.
        data: Where the table is.
        split: The rows that are queries and gallery.
        index_split: The rows that vote in k-NN.
        index_data: The table of these rows; `data` if not given.
        columns: Which of their columns are the table's.

    Returns:
        The tasks, and those that were left out for their labels, as `Suite.missing` has them.

    Raises:
        DataError: The table has no captions, and no two images of the same label.
    """
    labels = [label for label in table.labels if label is not None]
    tasks, missing = [], []
    if len(set(labels)) < len(labels):
        tasks.append(Task("i2i", "i2i", data, split))
    if labels and (index_split is not None or index_data is not None):
        tasks.append(Task("knn", "knn", data, split, index_split, index_data=index_data))
    if len(set(labels)) > 1:
        reason = why_not_class_names(labels)
        if reason is None:
            tasks.append(Task("zero-shot", "zero-shot", data, split))
        else:
            missing.append({"benchmark": None, "title": "zero-shot", "column": None, "reason": reason})
    if any(table.captions):
        tasks += [Task("t2i", "t2i", data, split), Task("i2t", "i2t", data, split)]
    if not tasks:
        lack = "no two images of the same label and no captions" if labels else "neither labels nor captions"
        raise DataError(f"{table.name} has {lack}: there is nothing to evaluate.{table.columns_hint}")
    return [replace(task, columns=columns) for task in tasks], tuple(missing)


def why_not_class_names(labels: Sequence[str]) -> str | None:
    """Why labels are not names of classes that zero-shot could choose among; None where they are."""
    names = set(labels)
    problem = None
    if len(names) > MAX_CLASSES:
        problem = f"there are {len(names):,} labels, more than {MAX_CLASSES}"
    elif len(labels) < 2 * len(names):
        problem = "most labels have one image only"
    elif long := [name for name in sorted(names) if len(name.split()) > _MAX_WORDS]:
        problem = f"the label {long[0]!r} has more than {_MAX_WORDS} words"
    elif bare := [name for name in sorted(names) if not any(map(str.isalpha, name))]:
        problem = f"the label {bare[0]!r} is not a word"
    if problem is None:
        return None
    return f"{problem}, so they name products rather than classes; a YAML suite with a zero-shot task measures it"
