"""Flowers102: k-NN over 102 kinds of flowers, the training images vote on the test images.

Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcip.core.errors import DataError
from mcip.data import Table
from mcip.evaluation.benchmarks.base import Benchmark, Classification
from mcip.evaluation.benchmarks.files import files_table, is_table, mat_of, table_split
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> Classification:
    """Read jpg/image_<number>.jpg, imagelabels.mat and setid.mat (trnid, tstid)."""
    place = places.place("flowers")
    if is_table(place, "jpg"):
        return Classification(train=table_split(place, "train"), test=table_split(place, "test"))
    root = places.folder("flowers")
    labels = np.ravel(mat_of(root / "imagelabels.mat", "labels")["labels"])
    splits = mat_of(root / "setid.mat", "trnid", "tstid")
    return Classification(
        train=_images(root, np.ravel(splits["trnid"]).tolist(), labels.tolist()),
        test=_images(root, np.ravel(splits["tstid"]).tolist(), labels.tolist()),
    )


def _images(root: Path, numbers: list[int], labels: list[int]) -> Table:
    """The images of these numbers, which count from 1."""
    if min(numbers) < 1 or max(numbers) > len(labels):
        raise DataError(f"{root / 'setid.mat'} names image {max(numbers)}; imagelabels.mat has {len(labels)} labels.")
    names = [f"jpg/image_{number:05d}.jpg" for number in numbers]
    return files_table(root, names, [str(labels[number - 1]) for number in numbers])


BENCHMARKS = (
    Benchmark(
        "knn-flowers", "k-NN Flowers102", "knn", ("flowers",), read, {"train": 1_020, "test": 6_149, "classes": 102}
    ),
)
