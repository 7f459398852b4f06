"""What has to be done for a table to hold what a listing lists."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from mcip.retrieval.listing import Listing
from mcip.retrieval.table import IndexTable


@dataclass(frozen=True)
class Plan:
    """What has to be done for a table to hold what a listing lists.

    Attributes:
        fresh: Numbers of the images that have to be read: those that the table lacks as they are now.
        relocated: Numbers of the images that are as they were, but at another path.
        ids: The ids of the table.
        gone: The ids of the table that are not in the listing, and not kept because they cannot be read now.
        surplus: Row ids of rows whose id another row has too.
        by_hash: `_rowid` of a row for each content hash of the table: an image with this content needs no embedding.
        thumbnailed: The hashes whose row has a thumbnail.
    """

    fresh: list[int] = field(default_factory=list)
    relocated: list[int] = field(default_factory=list)
    ids: frozenset[str] = frozenset()
    gone: list[str] = field(default_factory=list)
    surplus: list[int] = field(default_factory=list)
    by_hash: dict[str, int] = field(default_factory=dict)
    thumbnailed: frozenset[str] = frozenset()


def plan(listing: Listing, table: IndexTable) -> Plan:
    """Compare a listing with the table."""
    rows = table.read(["id", "stamp", "hash", "path"])
    stamps, hashes, paths, row_ids = (rows[name].to_pylist() for name in ("stamp", "hash", "path", "_rowid"))
    row_of: dict[str, int] = {}
    surplus: list[int] = []
    listed = dict(zip(listing.ids, range(len(listing)), strict=True))
    for row, name in enumerate(rows["id"].to_pylist()):
        other = row_of.setdefault(name, row)
        if other == row:
            continue
        if name in listed and stamps[row] == listing.stamps[listed[name]]:
            row_of[name], row = row, other
        surplus.append(row_ids[row])
    lacking = set[int]()
    if table.identity.thumbnails:
        lacking = set(table.read([], "thumbnail IS NULL")["_rowid"].to_pylist())
    fresh, relocated = [], []
    for number, (name, stamp, path) in enumerate(zip(listing.ids, listing.stamps, listing.paths, strict=True)):
        at = row_of.get(name)
        if at is None or stamps[at] != stamp or row_ids[at] in lacking:
            fresh.append(number)
        elif paths[at] != path:
            relocated.append(number)
    closed = tuple(f"{folder}/" if folder else "" for folder in listing.closed)
    gone = [
        name for name in row_of if name not in listed and name not in listing.closed and not name.startswith(closed)
    ]
    # Of several rows with a hash the last one counts: let it be one with a thumbnail.
    order = sorted(range(len(hashes)), key=lambda row: row_ids[row] not in lacking)
    by_hash = {hashes[row]: row_ids[row] for row in order}
    thumbnailed = frozenset(hashes[row] for row in order if row_ids[row] not in lacking)
    return Plan(fresh, relocated, frozenset(row_of), gone, surplus, by_hash, thumbnailed)


def _is_closed(name: str, closed: Container[str]) -> bool:
    """Whether a file or a folder above it is among those that cannot be read now; the outermost folder is ""."""
    while name and name not in closed:
        name = name.rpartition("/")[0]
    return name in closed
