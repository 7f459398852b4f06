"""Parts of an artefact that is being made, each with a mark that holds the hashes of its files.

By the marks a resumed run knows what it need not make again: what is missing, cut off or damaged is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcip.core.errors import ArtefactError
from mcip.core.files import read_json, write_json
from mcip.core.hashes import hash_file


def mark_part(mark: Path, files: Sequence[Path]) -> None:
    """Write the mark of a part whose files have been written.

    Args:
        mark: A JSON file beside them.
        files: The files, in the folder of the mark.
    """
    write_json(mark, {path.name: hash_file(path).hex() for path in files})


def is_whole(mark: Path, files: Sequence[Path]) -> bool:
    """Whether a part's files have been written, and are as they were written."""
    try:
        expected = read_json(mark)
        return bool(expected == {path.name: hash_file(path).hex() for path in files})
    except (ArtefactError, OSError):
        return False
