"""Parts of an artefact that is being made, each with a mark that holds the hashes of its files.

By the marks a resumed run knows what it need not make again: what is missing, cut off or damaged is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mcip.core.errors import ArtefactError
from mcip.core.files import read_json, write_json
from mcip.core.hashes import hash_file
from mcip.core.processes import Processes, processes


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


def missing_parts(count: int, whole: Callable[[int], bool]) -> list[int]:
    """The numbers of the parts that are left to make; of several processes the first looks.

    Args:
        count: How many parts there are.
        whole: Whether the part with this number has been made.
    """
    return processes().by_first(lambda: [number for number in range(count) if not whole(number)])


def part_name(team: Processes) -> str:
    """What a bar says of the part that it shows: that of the first process, where there are several."""
    return f" (1 of {team.count} processes)" if team.several else ""
