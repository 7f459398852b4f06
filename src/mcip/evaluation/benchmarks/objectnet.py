"""ObjectNet: zero-shot over the 113 classes that ImageNet has too.

Barbu et al., "ObjectNet: A Large-Scale Bias-Controlled Dataset for Pushing the Limits of Object Recognition Models",
NeurIPS 2019.
"""

from __future__ import annotations

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.evaluation.benchmarks.base import Benchmark, ZeroShot
from mcip.evaluation.benchmarks.files import folder_with, json_of, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> ZeroShot:
    """Read images/<folder>/<image>, and mappings for the folders' names and the classes shared with ImageNet."""
    root = places.folder("objectnet")
    root = root / "objectnet-1.0" if (root / "objectnet-1.0").is_dir() else root
    mappings = folder_with(root, "mappings")
    label_of = json_of(mappings / "folder_to_objectnet_label.json")
    shared = set(json_of(mappings / "objectnet_to_imagenet_1k.json"))
    if unknown := sorted(shared - set(label_of.values())):
        raise DataError(f"{mappings}: objectnet_to_imagenet_1k.json names {unknown[0]!r}, which has no folder.")
    names = {folder: label.lower() for folder, label in sorted(label_of.items()) if label in shared}
    table = read_table(folder_with(root, "images"))
    folders = [(label or "").rpartition("/")[2] for label in table.labels]
    rows = [row for row, folder in enumerate(folders) if folder in names]
    if not rows:
        raise DataError(f"{root / 'images'} has no folder of a class that ImageNet has too.")
    return ZeroShot(relabelled(table, folders).subset(rows), names)


BENCHMARKS = (
    Benchmark(
        "zero-shot-objectnet", "zero-shot ObjectNet", "zero-shot", ("objectnet",), read,
        {"images": 18_574, "classes": 113},
    ),
)  # fmt: skip
