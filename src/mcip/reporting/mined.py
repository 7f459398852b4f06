"""Mined captions: how many each image got, and examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcip.core.errors import ConfigError, McipError
from mcip.data import Table, read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.reporting.thumbnails import row_thumbnail


@dataclass(frozen=True)
class Example:
    """An image with the captions mined for it and their similarities (cosine), best first."""

    picture: str | None
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


def read_mined(folder: Path, tables: Iterable[str], examples: int = 6) -> Mined:
    """Read a captions artefact, and find the pictures of its examples.

    Args:
        folder: What `mcip mine` wrote.
        tables: Where the table that was mined for may be; the first that is it, or has it as a split, is taken.
        examples: How many examples.

    Raises:
        ArtefactError: `folder` holds no complete captions artefact.
    """
    mined = MinedCaptions(folder)
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


def _mined_table(fingerprint: str, sources: Iterable[str]) -> Table:
    tried = []
    for source in dict.fromkeys(sources):
        try:
            table = read_table(source)
        except McipError as error:
            tried.append(str(error))
            continue
        for split in (None, *dict.fromkeys(table.splits)):
            part = table.select(split)
            if part.images_fingerprint == fingerprint:
                return part
        tried.append(f"{source} is not the table that was mined for.")
    raise ConfigError(" ".join([*tried, "Name the table that was mined for: --images."]))


def _examples(mined: MinedCaptions, table: Table, count: int) -> list[Example]:
    images = mined.images
    row_of = {image: row for row, image in enumerate(table.ids)}
    similarities = images["similarities"].to_pylist()
    order = np.argsort([-max(own, default=-2.0) for own in similarities], kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)
    found = []
    for row in order[places].tolist():
        image = images["id"][row].as_py()
        texts = [mined.captions[caption] for caption in images["captions"][row].as_py()]
        own = list(zip(texts, similarities[row], strict=True))
        found.append(Example(row_thumbnail(table, row_of[image]), image, own))
    return found
