"""Mined captions: how many each image got, and examples."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mcip.core.errors import ConfigError, McipError
from mcip.data import Table, read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.reporting.thumbnails import row_thumbnail

TableSource: TypeAlias = "str | os.PathLike[str] | Table"


@dataclass(frozen=True)
class Example:
    """An image with the captions mined for it and their similarities (cosine), best first."""

    image: str | None
    id: str
    captions: list[tuple[str, float]]


@dataclass(frozen=True)
class Mined:
    """A captions artefact, for the report.

    Attributes:
        miner: The model that mined.
        pool: Where the captions came from.
        threshold: The least cosine of a caption that was kept; None if all were.
        unique_captions: How many different captions were kept.
        images_by_count: How many images got 0, 1, 2, ... captions.
        examples: From the image with the most similar caption to the one with the least; empty if `note` says why.
        note: Why there are no examples.
    """

    miner: str
    pool: str
    threshold: float | None
    unique_captions: int
    images_by_count: list[int]
    examples: list[Example]
    note: str | None

    @property
    def images(self) -> int:
        """How many images were mined for."""
        return sum(self.images_by_count)

    @property
    def mean(self) -> float:
        """Captions per image."""
        return sum(count * images for count, images in enumerate(self.images_by_count)) / max(1, self.images)


def read_mined(
    captions: str | os.PathLike[str] | MinedCaptions, tables: Iterable[TableSource], examples: int = 6
) -> Mined:
    """Read a captions artefact, and find the images of its examples.

    Args:
        captions: What `mcip mine` wrote.
        tables: Candidates for the table that was mined for; the first that is it, or has it as a split, is taken.
        examples: How many examples.

    Raises:
        ArtefactError: `captions` holds no complete captions artefact.
    """
    mined = captions if isinstance(captions, MinedCaptions) else MinedCaptions(Path(captions))
    facts = mined.artefact.manifest
    table, note = None, None
    try:
        table = _mined_table(facts["made_from"]["data"], tables)
    except McipError as error:
        note = str(error)
    return Mined(
        facts["model"], facts["pool"], facts["threshold"], facts["unique_captions"], facts["images_by_caption_count"],
        [] if table is None else _examples(mined, table, examples), note,
    )  # fmt: skip


def _mined_table(fingerprint: str, sources: Iterable[TableSource]) -> Table:
    reasons = []
    for source in sources:
        try:
            source = Path(source) if isinstance(source, os.PathLike) else source
            table = source if isinstance(source, Table) else read_table(source)
        except McipError as error:
            reasons.append(str(error))
            continue
        for split in (None, *dict.fromkeys(table.splits)):
            part = table.select(split)
            if part.images_fingerprint == fingerprint:
                return part
        reasons.append(f"{table.name} is not the table that was mined for.")
    raise ConfigError(" ".join([*reasons, "Name the table that was mined for: --images."]))


def _examples(mined: MinedCaptions, table: Table, count: int) -> list[Example]:
    images = mined.images
    row_of = {image: row for row, image in enumerate(table.ids)}
    similarities = images["similarities"].to_pylist()
    order = np.argsort([-max(cosines, default=-2.0) for cosines in similarities], kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)
    examples = []
    for row in order[places].tolist():
        image = images["id"][row].as_py()
        texts = [mined.captions[caption] for caption in images["captions"][row].as_py()]
        examples.append(
            Example(row_thumbnail(table, row_of[image]), image, list(zip(texts, similarities[row], strict=True)))
        )
    return examples
