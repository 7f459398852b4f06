"""Near-duplicates of an index, grouped, as JSON and as a page to look at."""

from __future__ import annotations

from pathlib import Path

from mcip.core.artefacts import atomic_write, write_json
from mcip.core.progress import console, progress
from mcip.retrieval.duplicates_page import duplicates_page
from mcip.retrieval.index import Index
from mcip.retrieval.near_duplicates import Group, duplicate_groups


def duplicates(
    db: str,
    out: Path = Path("runs/duplicates"),
    *,
    threshold: float = 0.95,
    neighbours: int = 16,
    shown: int = 200,
) -> Path:
    """Group the near-duplicates of an index: pictures that are joined by pairs above a threshold. No model is loaded.

    Which cosine makes a duplicate depends on the model: look at the page, and choose the threshold above which the
    groups are right.

    Args:
        db: What `mcip index` made.
        out: The folder for duplicates.json and duplicates.html.
        threshold: The least cosine of a pair.
        neighbours: Of each picture, how many of its nearest are looked at.
        shown: Groups on the page; all are in the JSON.

    Returns:
        The path of duplicates.html.

    Raises:
        ArtefactError: There is no index.
        ConfigError: A parameter is out of range.
    """
    index, out = Index(db), Path(out)
    with progress(f"compare {db}", len(index), "images") as advance:
        groups = duplicate_groups(index.engine, threshold, neighbours, advance)
    found = [_described(index, group) for group in groups]
    content = {"db": db, "threshold": threshold, "pictures": len(index), "groups": found}
    write_json(out / "duplicates.json", content)
    page = duplicates_page(index, found[: max(0, shown)], len(found), threshold)
    with atomic_write(out / "duplicates.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    spare = sum(len(group.slots) - 1 for group in groups)
    console.print(
        f"{len(groups):,} groups of near-duplicates among {len(index):,} pictures; {spare:,} pictures could go.",
        markup=False,
    )
    return out / "duplicates.html"


def _described(index: Index, group: Group) -> dict[str, object]:
    """A group as the JSON file has it: its pictures, those with the most pixels first, and its pairs."""
    hits = index.hits(group.slots)
    ids = dict(zip(group.slots, (hit.id for hit in hits), strict=True))
    order = sorted(hits, key=lambda hit: (-hit.width * hit.height, hit.id))
    return {
        "pictures": [{"id": hit.id, "path": hit.path, "width": hit.width, "height": hit.height} for hit in order],
        "pairs": [{"ids": [ids[one], ids[other]], "cosine": round(score, 6)} for one, other, score in group.pairs],
    }
