"""Adience: faces, every image against all, a person a class.

Eidinger et al., "Age and Gender Estimation of Unfiltered Faces", IEEE TIFS 2014.
"""

from __future__ import annotations

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.evaluation.benchmarks.base import Benchmark, Retrieval
from mcip.evaluation.benchmarks.files import folder_with, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> Retrieval:
    """Read faces/<user>/coarse_tilt_aligned_face.<person>.<image>.jpg; the person is a number."""
    root = places.folder("adience")
    table = read_table(folder_with(root, "faces", "aligned"))
    labels = []
    for name in table.ids:
        parts = name.rpartition("/")[2].split(".")
        if len(parts) < 4 or not parts[-3].isdecimal():
            raise DataError(f"{root}: the file name {name} is not <kind>.<person>.<image>.jpg.")
        labels.append(parts[-3])
    return Retrieval(relabelled(table, labels))


BENCHMARKS = (
    # The authors count 26,580 images; their five lists, which the folder `faces` follows, name 19,370 of them.
    Benchmark("adience", "Adience", "i2i", ("adience",), read, {"queries": (26_580, 19_370)}, self_match="kept"),
)
