"""INSTRE: every image against all, as the paper does, and the classic protocol of 1,250 queries.

Wang and Jiang, "INSTRE: A New Benchmark for Instance-Level Object Retrieval and Recognition", ACM TOMM 2015; the
classic protocol is that of Iscen et al., "Efficient Diffusion on Region Manifolds", CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.evaluation.benchmarks.base import Benchmark, Retrieval
from mcip.evaluation.benchmarks.files import cropped, files_table, mat_of, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset

_PARTS = ("INSTRE-S1", "INSTRE-S2", "INSTRE-M")


def read_all(places: Places, preset: Preset) -> Retrieval:
    """Read <part>/<class>/<image> of the three parts; the class is the folder's name, or the part and the name."""
    root = places.folder("instre")
    table = read_table(root)
    parts = [label and label.partition("/")[0] for label in table.labels]
    if unknown := [name for name, part in zip(table.ids, parts, strict=True) if part not in _PARTS]:
        raise DataError(f"{root}: {unknown[0]} is in none of the folders {', '.join(_PARTS)}.")
    folders = [str(label) for label in table.labels]
    names = [folder.rpartition("/")[2] for folder in folders] if preset.merge_folders else folders
    return Retrieval(relabelled(table, names))


def read_classic(places: Places, preset: Preset) -> Retrieval:
    """Read gnd_instre.mat: query and gallery images, and of each query its box and its positives."""
    root = places.folder("instre")
    content = mat_of(root / "gnd_instre.mat", "qimlist", "imlist", "gnd")
    queries, gallery = (files_table(root, map(_path, content[name].flat)) for name in ("qimlist", "imlist"))
    entries = [list(entry) for entry in content["gnd"].flat]
    if len(entries) != len(queries):
        raise DataError(f"{root / 'gnd_instre.mat'}: {len(queries)} queries have {len(entries)} entries in gnd.")
    # MATLAB counts from 1. A box is x0, y0, x1, y1.
    relevant = [(np.asarray(entry[0], np.int64).ravel() - 1).tolist() for entry in entries]
    truth = [{"easy": rows, "hard": [], "junk": []} for rows in relevant]
    if preset.crop_queries:
        queries = cropped(queries, [np.asarray(entry[1], np.float64).ravel()[:4].tolist() for entry in entries])
    return Retrieval(queries, (gallery,), truth)


def _path(cell: object) -> str:
    """A path out of a MATLAB cell of text."""
    return Path(str(np.asarray(cell).ravel()[0]).replace("\\", "/")).as_posix()


BENCHMARKS = (
    Benchmark("instre", "INSTRE", "i2i", ("instre",), read_all, {"queries": 28_543}, self_match="kept"),
    Benchmark(
        "instre-classic", "INSTRE classic", "i2i", ("instre",), read_classic, {"queries": 1_250, "gallery": 27_293},
    ),
)  # fmt: skip
