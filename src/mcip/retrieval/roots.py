"""What an index is the index of: one or more sources, which may be added, moved, or replaced with consent."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from mcip.core.errors import ConfigError, DataError
from mcip.retrieval.identity import Root
from mcip.retrieval.joined_listing import joined, with_prefix
from mcip.retrieval.listing import DataLike, Listing, list_images
from mcip.retrieval.location import is_remote, resolve


def list_roots(
    known: Sequence[Root],
    data: Sequence[DataLike],
    moved_to: Sequence[str],
    replace: bool,
    uri: str,
    columns: str = "",
    raw_pairs: bool | None = None,
) -> tuple[tuple[Root, ...], Listing]:
    """List what an index shall hold.

    Args:
        known: The sources that it holds.
        data: Those that it shall hold; those that it holds if empty.
        moved_to: Where sources have moved, see `moved_roots`.
        replace: Whether sources that are not in `data` may be removed.
        uri: Of the index, for messages.
        columns: Which columns of the tables in `data` are image, label, ...; those named before if empty.
        raw_pairs: Whether camera RAW beside a JPEG or HEIC is listed; as before if not given, at first not.

    Returns:
        The sources that it holds then, and their images.

    Raises:
        ConfigError: A source would be removed without consent, or is inside another one.
        DataError: A source cannot be listed, or two sources have an id in common.
    """
    known = moved_roots(known, moved_to)
    if not data and any(root.kind == "memory" for root in known):
        raise ConfigError(f"{uri} was made from an object in memory: give that object again to update it.")
    before = {root.location: root for root in known}
    named = {root.location: root.columns for root in known}
    pairs = {root.location: root.raw_pairs if raw_pairs is None else raw_pairs for root in known}
    listings: dict[str, Listing] = {}
    for source in data:
        location = _location(source)
        listing = list_images(source, columns or named.get(location, ""), pairs.get(location, bool(raw_pairs)))
        if columns:
            named[listing.location] = columns
        listings.setdefault(listing.location, listing)
    for root in [] if data else known:
        named[root.location] = columns or root.columns
        listings[root.location] = _listed_again(root.location, named[root.location], pairs[root.location], uri)
    _check_apart(listings)
    missing = [root for root in known if root.location not in listings]
    changed = [root for root in known if root.location in listings and listings[root.location].kind != root.kind]
    if missing and not replace:
        raise ConfigError(
            f"{uri} is the index of {_names(known)}. Indexing only {_names(listings.values())} would delete "
            f"{_names(missing)} from it: to keep it, name it too; if it has moved, say --moved-to NEW (or OLD=NEW); to "
            "delete it, say --replace; or choose another --db."
        )
    if changed and not replace:
        raise ConfigError(
            f"{changed[0].location} was indexed as {changed[0].kind}, but is {listings[changed[0].location].kind} now. "
            "If that is meant, say --replace."
        )
    roots: list[Root] = []
    for location, listing in listings.items():
        old = before.get(location)
        prefix = old.prefix if old else _new_prefix(location, [*known, *roots], listings)
        paired = pairs.get(location, bool(raw_pairs))
        roots.append(Root(listing.kind, location, prefix, named.get(location, ""), paired))
    every = joined([with_prefix(listings[root.location], root.prefix) for root in roots])
    if len(set(every.ids)) < len(every):
        twice = Counter(every.ids).most_common(1)[0][0]
        raise DataError(f"Two of {every.name} hold an image with the id {twice!r}: index them at different --db.")
    return tuple(roots), every


def moved_roots(known: Sequence[Root], moved_to: Sequence[str]) -> tuple[Root, ...]:
    """Sources at their new places.

    Args:
        known: The sources.
        moved_to: The new place of the only source, or "OLD=NEW": each source at OLD or below it is at NEW now.

    Raises:
        ConfigError: No source was at OLD, or OLD is needed because there are several.
    """
    roots = tuple(known)
    for text in moved_to:
        options = [(text[:at], text[at + 1 :]) for at, letter in enumerate(text) if letter == "="]
        pairs = [(resolve(old), new) for old, new in options if old and new]
        matching = [(old, new) for old, new in pairs if any(_is_below(root.location, old) for root in roots)]
        if matching:
            old, new = matching[0][0], resolve(matching[0][1])
        elif len(roots) == 1:
            old, new = roots[0].location, resolve(text)
        else:
            raise ConfigError(
                f"--moved-to {text}: say which source has moved, as OLD=NEW. The index is of {_names(roots)}."
            )
        roots = tuple(_moved(root, old, new) for root in roots)
    return roots


def _listed_again(location: str, columns: str, raw_pairs: bool, uri: str) -> Listing:
    """The images of a source that an index holds already."""
    try:
        return list_images(location, columns, raw_pairs)
    except DataError as error:
        if is_remote(location) or os.path.lexists(location):
            raise
        raise DataError(f"{error} ({uri} is the index of it: if it has moved, say --moved-to NEW.)") from error


def _moved(root: Root, old: str, new: str) -> Root:
    if not _is_below(root.location, old):
        return root
    return dataclasses.replace(root, location=new + root.location[len(old) :])


def _location(source: DataLike) -> str:
    """Where a source that is a place is; empty for an object."""
    return resolve(source) if isinstance(source, str | os.PathLike) else ""


def _is_below(location: str, folder: str) -> bool:
    return location == folder or location.startswith(folder.rstrip("/") + "/")


def _check_apart(listings: dict[str, Listing]) -> None:
    for location, listing in listings.items():
        for other, outer in listings.items():
            if other != location and _is_below(location, other) and listing.kind == outer.kind:
                raise ConfigError(f"{location} is inside {other}: leave it out, or its images are indexed twice.")


def _new_prefix(location: str, roots: Sequence[Root], listings: dict[str, Listing]) -> str:
    """A prefix for the ids of a new source: none if it is alone, else its name, which no other id begins with."""
    if len(listings) == 1:
        return ""
    name = location.rstrip("/").rpartition("/")[2] if is_remote(location) else PurePath(location).name
    others = [root.prefix for root in roots]
    candidate, number = f"{name}/", 2
    while candidate in others or any(
        identity.startswith(candidate) for other, listing in listings.items() if other != location
        for identity in listing.ids
    ):  # fmt: skip
        candidate, number = f"{name}-{number}/", number + 1
    return candidate


def _names(sources: Iterable[Root | Listing]) -> str:
    return " and ".join(source.location for source in sources)
