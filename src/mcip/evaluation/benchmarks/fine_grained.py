"""CUB-200-2011, Cars196 and Stanford Online Products: the test half of the classes, every image against all of it.

Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011; Krause et al., "3D Object Representations for Fine-Grained
Categorization", 3dRR 2013; Oh Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016,
who split all three by classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcip.core.errors import DataError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import Benchmark, Read, Retrieval
from mcip.evaluation.benchmarks.files import files_table, folder_with, is_table, lines_of, mat_of, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read_cub(places: Places, preset: Preset) -> Retrieval:
    """Read images/<NNN.Name>/<image>; the second hundred of the classes."""
    place = places.place("cub")
    official = ("images", "CUB_200_2011/images")
    table = read_table(place if is_table(place, *official) else folder_with(places.folder("cub"), *official))
    return Retrieval(_last_classes(table, 100), ks=(1, 2, 4, 8, 32))


def read_cars(places: Places, preset: Preset) -> Retrieval:
    """Read cars_annos.mat with car_ims, or one folder per class; the last 98 of the classes."""
    place = places.place("cars")
    root = Path(place)
    if (root / "cars_annos.mat").is_file():
        entries = mat_of(root / "cars_annos.mat", "annotations")["annotations"].ravel()
        names = [str(np.asarray(entry["relative_im_path"]).ravel()[0]) for entry in entries]
        classes = [int(np.asarray(entry["class"]).ravel()[0]) for entry in entries]
        table = files_table(root, names, [f"{number:03d}" for number in classes])
    else:
        table = read_table(place)
    return Retrieval(_last_classes(table, 98), ks=(1, 2, 4, 8))


def read_sop(places: Places, preset: Preset) -> Retrieval:
    """Read Ebay_test.txt: image id, class id, super-class id and path, after a header."""
    root = places.folder("sop")
    header, *lines = lines_of(root / "Ebay_test.txt")
    rows = [line.split() for line in lines]
    if header.split() != ["image_id", "class_id", "super_class_id", "path"] or any(len(row) != 4 for row in rows):
        raise DataError(f"{root / 'Ebay_test.txt'} must have the columns image_id, class_id, super_class_id and path.")
    return Retrieval(files_table(root, [row[3] for row in rows], [row[1] for row in rows]), ks=(1, 10, 100, 1000))


def _last_classes(table: Table, first: int) -> Table:
    """The images of the classes from number `first` on, in the order of their sorted names, from 0.

    Raises:
        DataError: An image is in no class, or there are not so many classes.
    """
    names = sorted({label for label in table.labels if label is not None})
    if None in table.labels or len(names) <= first:
        raise DataError(f"{table.name}: {len(names)} class folders; the classes to test on begin after {first}.")
    test = set(names[first:])
    rows = [row for row, label in enumerate(table.labels) if label in test]
    labels = [str(label).rpartition("/")[2] for label in table.labels]
    return relabelled(table, labels).subset(rows)


def _benchmark(name: str, title: str, read: Read, images: int, classes: int) -> Benchmark:
    counts = {"queries": images, "classes": classes}
    return Benchmark(name, title, "i2i", (name,), read, counts, metric="r1", self_match="first dropped")


BENCHMARKS = (
    _benchmark("cub", "CUB-200-2011", read_cub, 5_924, 100),
    _benchmark("cars", "Cars196", read_cars, 8_131, 98),
    _benchmark("sop", "SOP", read_sop, 60_502, 11_316),
)
