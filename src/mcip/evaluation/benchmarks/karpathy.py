"""Karpathy's test splits of captioned images, in the files in which they are handed on.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.evaluation.benchmarks.base import CrossModal
from mcip.evaluation.benchmarks.files import files_table, json_of, recaptioned, table_split


def from_split_file(root: Path, path: Path, folder: str) -> CrossModal:
    """Read dataset_<name>.json: all images with their split, file name and sentences.

    Args:
        root: The data set's folder.
        path: The JSON file.
        folder: Where below `root` the images are.

    Raises:
        DataError: It is not such a file, or has no test images.
    """
    try:
        entries: list[dict[str, Any]] = [one for one in json_of(path)["images"] if one["split"] == "test"]
        names = [f"{folder}/{entry['filename']}".lstrip("/") for entry in entries]
        captions = [[str(sentence["raw"]) for sentence in entry["sentences"]] for entry in entries]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not Karpathy's split file: {error!r}.") from error
    return CrossModal(files_table(root, names, captions=captions))


def from_table(place: str) -> CrossModal:
    """Read tars, parquet files or a data set of the hub; several captions may be lines of one text."""
    table = table_split(place, "test")
    return CrossModal(recaptioned(table, [_lines(captions) for captions in table.captions]))


def grouped(root: Path, pairs: list[tuple[str, str]]) -> Table:
    """A table of the images in the order in which they are first named, with all captions of each.

    Args:
        root: Where the names start.
        pairs: Image name and caption.
    """
    captions: dict[str, list[str]] = {}
    for name, caption in pairs:
        captions.setdefault(name, []).append(caption)
    return files_table(root, captions, captions=captions.values())


def _lines(captions: list[str]) -> list[str]:
    return [line.strip() for caption in captions for line in caption.splitlines() if line.strip()]
