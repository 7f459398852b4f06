"""Whether an update may delete what it would delete: an unmounted disk must not empty an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from mcip.core.errors import DataError

_SHOWN = 5


def check_removal(
    ids: Sequence[str], lost: Iterable[str], allowed: float, is_file: Callable[[str], bool], name: str
) -> None:
    """Refuse to delete a large share of an index, or all of a folder.

    Args:
        ids: Of all rows of the index, before.
        lost: Ids of the rows that would be deleted and whose images are nowhere else in the index.
        allowed: The share of the rows that may be lost; 1 allows everything.
        is_file: Whether an id is the path of a file.
        name: What messages call the source.

    Raises:
        DataError: It is refused; the message names the folders concerned.
    """
    missing = list(lost)
    if not missing or allowed >= 1:
        return
    missing_files = list(filter(is_file, missing))
    emptied = _emptied_folders(filter(is_file, ids), missing_files)
    if len(missing) <= allowed * len(ids) and not emptied:
        return
    concerned = emptied or _by_folder(missing_files)
    shown = "".join(f"\n  {folder}: {count:,}" for folder, count in list(concerned.items())[:_SHOWN])
    more = f"\n  and {len(concerned) - _SHOWN:,} more folders" if len(concerned) > _SHOWN else ""
    what = "all images of these folders are" if emptied else f"that is more than max_removed = {allowed:g} of them"
    raise DataError(
        f"{len(missing):,} of the {len(ids):,} images of the index are missing from {name} or cannot be read any more, "
        f"and {what}{' among them' if emptied else ''}:{shown}{more}\n"
        "Nothing was deleted. If a disk or a bucket is not mounted, mount it; if they shall go, say --max-removed 1."
    )


def _emptied_folders(ids: Iterable[str], missing: Iterable[str]) -> dict[str, int]:
    """The topmost folders of which every image is missing, with their counts."""
    before, after = _below(ids), _below(missing)
    emptied = {folder for folder, count in after.items() if count == before[folder]}
    topmost = (folder for folder in emptied if not emptied & {str(above) for above in PurePosixPath(folder).parents})
    return {folder: after[folder] for folder in sorted(topmost)}


def _below(ids: Iterable[str]) -> Counter[str]:
    """How many images lie below each folder, directly or deeper."""
    direct = Counter(name.rpartition("/")[0] for name in ids)
    total: Counter[str] = Counter()
    for folder, count in direct.items():
        while folder:
            total[folder] += count
            folder = folder.rpartition("/")[0]
    return total


def _by_folder(missing: Iterable[str]) -> dict[str, int]:
    return dict(Counter(name.rpartition("/")[0] or "." for name in missing).most_common())
