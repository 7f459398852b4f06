"""FGVC Aircraft: k-NN over 100 variants, the training images vote on the test images.

Maji et al., "Fine-Grained Visual Classification of Aircraft", arXiv 1306.5151.
"""

from __future__ import annotations

from pathlib import Path

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.evaluation.benchmarks.base import Benchmark, Classification
from mcip.evaluation.benchmarks.files import files_table, folder_with, is_table, lines_of, table_split
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> Classification:
    """Read data/images_variant_<split>.txt and data/images/<number>.jpg."""
    place = places.place("aircraft")
    if is_table(place, "data"):
        return Classification(train=table_split(place, "train"), test=table_split(place, "test"))
    root = folder_with(places.folder("aircraft"), "data")
    return Classification(train=_split(root, "train"), test=_split(root, "test"))


def _split(root: Path, split: str) -> Table:
    path = root / f"images_variant_{split}.txt"
    rows = [line.split(maxsplit=1) for line in lines_of(path)]
    if any(len(row) != 2 for row in rows):
        raise DataError(f"{path}: a line is the number of an image and its variant.")
    return files_table(root, [f"images/{number}.jpg" for number, _ in rows], [variant for _, variant in rows])


BENCHMARKS = (
    Benchmark(
        "knn-aircraft", "k-NN FGVC Aircraft", "knn", ("aircraft",), read,
        {"train": 3_334, "test": 3_333, "classes": 100},
    ),
)  # fmt: skip
