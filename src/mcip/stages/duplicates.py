"""Find the near-duplicates of an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.processes import check_one_process
from mcip.stages.inputs import IndexInput, as_index

if TYPE_CHECKING:
    from mcip.retrieval.duplicates import Duplicates


def duplicates(
    db: IndexInput,
    out: Path = Path("runs/duplicates"),
    *,
    threshold: float = 0.95,
    shown: int = 200,
) -> Duplicates:
    """Group the exact copies and near-duplicates of an index, and list what to keep and what to delete.

    Each group has an image to keep, that with the most pixels, and every other image of the group is within the
    threshold of that one. No image is deleted, and no model is loaded. Which cosine makes a duplicate depends on the
    model: look at the page, and choose the threshold above which the groups are right.

    Args:
        db: What `mcip index` made, or an opened index.
        out: The folder for duplicates.html, duplicates.json, keep.txt and delete.txt.
        threshold: The least cosine of an image to the one that is kept.
        shown: Groups on the page; all are in the JSON.

    Returns:
        The groups, exact copies first, then the surest first; as a path it is the folder.

    Raises:
        ArtefactError: There is no index.
        ConfigError: The threshold is out of range.

    Example:
        >>> found = mcip.duplicates("photos.lance", threshold=0.97)
        >>> found.delete.read_text().splitlines()
    """
    check_one_process()
    from mcip.core.progress import progress
    from mcip.retrieval.duplicates import Duplicates
    from mcip.retrieval.near_duplicates import duplicate_groups

    index = as_index(db)
    snapshot = index.snapshot()
    with progress("compare images", len(snapshot), "images") as advance:
        groups = duplicate_groups(snapshot.engine, threshold, advance)
    found = Duplicates.of(snapshot, groups, threshold, Path(out))
    found.write(index, shown)
    return found
