"""Commits to a Lance table that hold whole files only.

Lance writes through a buffer and does not hear of an error in the last part of a file: on a full disk a file that is
cut off would become part of the table. So what was written is compared with what should have been before it does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from mcip.core.files import explain_full_disk
from mcip.core.optional import module


def commit(uri: str, transaction: Any) -> Any:
    """Make what a transaction wrote part of the table; the new version of the `lance.LanceDataset`.

    Raises:
        ArtefactError: A file is cut off; the table is as it was.
    """
    operation = transaction.operation
    check_fragments(uri, operation.new_fragments if hasattr(operation, "new_fragments") else operation.fragments)
    return module("lance").LanceDataset.commit(uri, transaction)


def check_fragments(uri: str, fragments: Iterable[Any]) -> None:
    """Check that the files of fragments (`lance.FragmentMetadata`) are whole.

    Raises:
        ArtefactError: One is cut off.
    """
    if "://" in uri:  # object storage takes a file whole or refuses it
        return
    for file in (file for fragment in fragments for file in fragment.files):
        path = Path(uri, "data", file.path)
        if file.file_size_bytes and path.stat().st_size < file.file_size_bytes:
            refuse_cut_off(path)


def compact(uri: str, dataset: Any, deleted: float) -> None:
    """Join small fragments, and write those anew of which more than the share `deleted` is deleted.

    Raises:
        ArtefactError: A file is cut off; the table is as it was.
    """
    from lance.optimize import Compaction

    tasks = Compaction.plan(dataset, {"materialize_deletions_threshold": deleted}).tasks
    rewritten = [task.execute(dataset) for task in tasks]
    check_fragments(uri, [fragment for part in rewritten for fragment in part.new_fragments])
    if rewritten:
        Compaction.commit(dataset, rewritten)


def add_column(uri: str, dataset: Any, name: str, expression: str) -> Any:
    """Add a column that an SQL expression gives; the new version of the dataset.

    Raises:
        ArtefactError: A file is cut off; the table is as it was.
    """
    lance = module("lance")
    merged = [fragment.merge_columns({name: expression}) for fragment in dataset.get_fragments()]
    if not merged:
        dataset.add_columns({name: expression})
        return lance.dataset(uri)
    check_fragments(uri, [fragment for fragment, _ in merged])
    operation = lance.LanceOperation.Merge([fragment for fragment, _ in merged], merged[0][1])
    return lance.LanceDataset.commit(uri, operation, read_version=dataset.version)


def refuse_cut_off(path: Path) -> NoReturn:
    """Raise the error of a file that was cut off because the disk is full.

    Raises:
        ArtefactError: Always.
    """
    with explain_full_disk(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    raise AssertionError


def index_is_whole(uri: str, dataset: Any, name: str) -> bool:
    """Whether no file of the index of this name, one of Lance's own, is cut off."""
    if "://" in uri:
        return True
    segments = [part for index in dataset.describe_indices() if index.name == name for part in index.segments]
    return all(
        sum(file.stat().st_size for file in Path(uri, "_indices", part.uuid).glob("*")) >= part.size_bytes
        for part in segments
        if part.size_bytes
    )
