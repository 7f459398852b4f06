"""The near-duplicates of an index, as they are listed, shown and written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mcip.core.files import atomic_write, write_json
from mcip.retrieval.duplicates_page import duplicates_page
from mcip.retrieval.index import Index
from mcip.retrieval.near_duplicates import SlotGroup
from mcip.retrieval.results import Hit, printable
from mcip.retrieval.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Group

# Groups that a terminal shows.
_SHOWN: Final = 20


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that can stand for each other.

    Attributes:
        keep: The image that represents the others.
        others: The others in descending order of their cosine to it, which is their score; 1 for exact copies.
        exact: Whether they are copies of the same file. Otherwise they are within the threshold of `keep`.
    """

    keep: Hit
    others: tuple[Hit, ...]
    exact: bool


@dataclass(frozen=True)
class Duplicates(os.PathLike[str]):
    """The near-duplicates of an index; as a path it is the folder that they were written to.

    Attributes:
        groups: Exact copies first, then the surest first.
        images: How many images were compared.
        threshold: The least cosine of an image to the one that represents it.
        folder: Where the files lie.
    """

    groups: tuple[DuplicateGroup, ...]
    images: int
    threshold: float
    folder: Path

    @classmethod
    def of(cls, snapshot: Snapshot, groups: Iterable[SlotGroup], threshold: float, folder: Path) -> Duplicates:
        """Describe the groups of a version of an index."""
        described = []
        for group in groups:
            slots = [group.representative, *(slot for slot, _ in group.members)]
            cosines = np.array([1, *(cosine for _, cosine in group.members)], np.float32)
            keep, *others = snapshot.hits(np.array(slots), cosines)
            described.append(DuplicateGroup(keep, tuple(others), group.exact))
        return cls(tuple(described), len(snapshot), threshold, folder)

    @property
    def json(self) -> Path:
        """All groups with their images, for programs."""
        return self.folder / "duplicates.json"

    @property
    def page(self) -> Path:
        """The page to look at."""
        return self.folder / "duplicates.html"

    @property
    def keep(self) -> Path:
        """The paths of the images to keep, one per line."""
        return self.folder / "keep.txt"

    @property
    def delete(self) -> Path:
        """The paths of the images that can be deleted, one per line, in the order of the groups.

        Left out are paths that are kept under another id, and those with a line break in them.
        """
        return self.folder / "delete.txt"

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __len__(self) -> int:
        return len(self.groups)

    def write(self, index: Index, shown: int) -> None:
        """Write all files; the page shows the first groups only."""
        groups = [_as_json(group) for group in self.groups]
        content = {"db": index.uri, "threshold": self.threshold, "images": self.images, "groups": groups}
        write_json(self.json, content)
        deleted = dict.fromkeys(hit.id for group in self.groups for hit in group.others)
        # What represents exact copies may be near a larger image.
        kept = dict.fromkeys(group.keep.path for group in self.groups if group.keep.id not in deleted)
        paths = dict.fromkeys(hit.path for group in self.groups for hit in group.others if hit.path not in kept)
        _write_lines(self.keep, kept)
        _write_lines(self.delete, paths)
        page = duplicates_page(index, groups[: max(0, shown)], len(groups), self.threshold)
        with atomic_write(self.page) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def __str__(self) -> str:
        copies = sum(len(group.others) for group in self.groups if group.exact)
        near = sum(len(group.others) for group in self.groups) - copies
        return (
            f"{len(self.groups):,} groups among {self.images:,} images: {copies:,} exact copies and {near:,} "
            f"near-duplicates could be deleted. Look at {self.page}; {self.keep.name} and {self.delete.name} beside it "
            "list what to keep and what to delete."
        )

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("", "least cosine", "keep", "delete")
        for group in self.groups[:_SHOWN]:
            others = "\n".join(printable(hit.id) for hit in group.others)
            cosine = f"{group.others[-1].score:.3f}"
            table.add_row("copies" if group.exact else "near", cosine, Text(printable(group.keep.id)), Text(others))
        return Group(*([table] if self.groups else []), Text(str(self)))


def _as_json(group: DuplicateGroup) -> dict[str, Any]:
    images = [
        {"id": hit.id, "path": hit.path, "width": hit.width, "height": hit.height, "cosine": round(hit.score, 6)}
        for hit in (group.keep, *group.others)
    ]
    return {"exact": group.exact, "keep": group.keep.id, "images": images}


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as temporary:
        text = "".join(f"{line}\n" for line in lines if line.splitlines() == [line])
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
