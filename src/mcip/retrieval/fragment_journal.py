"""Notes of fragments that are written but not yet part of a table, so that a killed run keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mcip.core.files import read_json, write_json
from mcip.core.optional import module
from mcip.retrieval.table import IndexTable


def note_fragments(journal: Path, table: IndexTable, fragments: list[str]) -> None:
    """Remember fragments that are written but not yet part of the table."""
    journal.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.stem) for path in journal.glob("*.json")), default=-1)
    write_json(journal / f"{number:08d}.json", {"table": table.identity.created, "fragments": fragments})


def commit_noted(table: IndexTable, journal: Path, before_change: Callable[[], None]) -> IndexTable:
    """Make the fragments that were noted part of the table, in one commit, unless they are already."""
    notes = sorted(journal.glob("*.json"))
    if not notes:
        return table
    lance = module("lance")
    present = {file.path for fragment in table.dataset.get_fragments() for file in fragment.data_files()}
    noted = [read_json(note) for note in notes]
    described = [text for note in noted if note["table"] == table.identity.created for text in note["fragments"]]
    fragments = [lance.FragmentMetadata.from_json(text) for text in described]
    fragments = [fragment for fragment in fragments if not present & {file.path for file in fragment.files}]
    if fragments:
        before_change()
        append = lance.LanceOperation.Append(fragments)
        lance.LanceDataset.commit(table.uri, append, read_version=table.version)
    for note in notes:
        note.unlink()
    return table.latest()
