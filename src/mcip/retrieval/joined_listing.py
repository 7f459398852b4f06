"""The listings of several sources as the listing of one index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import pyarrow as pa

from mcip.retrieval.listing import FOLDERS, Listing
from mcip.retrieval.metadata import file_columns, fit_types


def joined(listings: Sequence[Listing]) -> Listing:
    """Several listings as one; their ids must differ.

    Raises:
        DataError: Two of them have columns of one name that do not go together.
    """
    if len(listings) == 1:
        return listings[0]
    types: dict[str, pa.DataType] = {}
    for listing in listings:
        _, wider = fit_types(listing.metadata, types, listing.name)
        types |= {found.name: found.type for found in listing.metadata.schema if found.name not in types} | wider
    return Listing(
        name=", ".join(listing.name for listing in listings),
        kind="several",
        location="",
        ids=[name for listing in listings for name in listing.ids],
        paths=[path for listing in listings for path in listing.paths],
        stamps=[stamp for listing in listings for stamp in listing.stamps],
        metadata=pa.concat_tables(
            [fit_types(listing.metadata, types, listing.name)[0] for listing in listings], promote_options="default"
        ),
        content=_Joined(listings),
        skipped={name: why for listing in listings for name, why in listing.skipped.items()},
        closed={name: why for listing in listings for name, why in listing.closed.items()},
        superseded=frozenset(name for listing in listings for name in listing.superseded),
    )


def with_prefix(listing: Listing, prefix: str) -> Listing:
    """A listing with a prefix before each id, as several sources in one index need it."""
    if not prefix:
        return listing
    ids = [prefix + name for name in listing.ids]
    return replace(
        listing,
        ids=ids,
        metadata=file_columns(ids) if listing.kind in FOLDERS else listing.metadata,
        skipped={prefix + name: why for name, why in listing.skipped.items()},
        closed={prefix + name: why for name, why in listing.closed.items()},
        superseded=frozenset(prefix + name for name in listing.superseded),
    )


class _Joined:
    """Reads from several listings, which follow each other."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self.contents = [listing.content for listing in listings]
        self.starts = list(accumulate(map(len, listings), initial=0))

    def __call__(self, number: int) -> bytes:
        part = bisect_right(self.starts, number) - 1
        return self.contents[part](number - self.starts[part])
