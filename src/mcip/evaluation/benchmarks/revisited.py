"""ROxford and RParis, with and without the million distractors.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mcip.core.errors import DataError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import Benchmark, Retrieval
from mcip.evaluation.benchmarks.files import cropped, files_table, folder_with
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset
from mcip.evaluation.safe_pickle import read_pickle

_KINDS = ("easy", "hard", "junk")


def read(data_set: str, distractors: bool, places: Places, preset: Preset) -> Retrieval:
    """Read gnd_<data set>.pkl and jpg/<name>.jpg; the distractors are all images below revisitop1m/jpg."""
    root = places.folder(data_set)
    path = root / f"gnd_{data_set}.pkl"
    content = read_pickle(path)
    try:
        truth = [{kind: _numbers(entry[kind]) for kind in _KINDS} for entry in content["gnd"]]
        boxes = [[float(value) for value in np.ravel(entry["bbx"])[:4]] for entry in content["gnd"]]
        names, gallery_names = list(content["qimlist"]), list(content["imlist"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not the ground truth of {data_set}: {error!r}.") from error
    if len(truth) != len(names):
        raise DataError(f"{path}: {len(names)} queries have {len(truth)} entries of ground truth.")
    queries = files_table(root, (f"jpg/{name}.jpg" for name in names))
    gallery: tuple[Table, ...] = (
        places.once(f"gallery of {data_set}", lambda: files_table(root, (f"jpg/{name}.jpg" for name in gallery_names))),
    )
    if distractors:
        folder = folder_with(places.folder("revisitop1m"), "jpg")
        gallery += (places.once("revisitop1m", lambda: read_table(folder)),)
    return Retrieval(cropped(queries, boxes) if preset.crop_queries else queries, gallery, truth)


def _numbers(rows: Any) -> list[int]:
    return [int(row) for row in np.ravel(rows)]


def _benchmarks(data_set: str, name: str, title: str, gallery: int) -> tuple[Benchmark, Benchmark]:
    return (
        Benchmark(
            name, title, "i2i", (data_set,), partial(read, data_set, False), {"queries": 70, "gallery": gallery}
        ),
        Benchmark(
            f"{name}-1m", f"{title} + 1M", "i2i", (data_set, "revisitop1m"), partial(read, data_set, True),
            {"queries": 70, "gallery": gallery + 1_001_001},
        ),
    )  # fmt: skip


BENCHMARKS = (
    *_benchmarks("roxford5k", "roxford", "ROxford", 4_993),
    *_benchmarks("rparis6k", "rparis", "RParis", 6_322),
)
