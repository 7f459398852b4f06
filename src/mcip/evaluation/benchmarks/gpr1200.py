"""GPR1200: 1,200 categories of 10 images from six domains, every image against all.

Schall et al., "GPR1200: A Benchmark for General-Purpose Content-Based Image Retrieval", MMM 2022, arXiv 2111.13122.
"""

from __future__ import annotations

from mcip.core.errors import DataError
from mcip.data import read_table
from mcip.evaluation.benchmarks.base import Benchmark, Retrieval
from mcip.evaluation.benchmarks.files import folder_with, is_table, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset

# In the order of the category numbers, 200 categories each.
DOMAINS = ("landmarks", "nature", "sketches", "objects", "products", "faces")


def read(places: Places, preset: Preset) -> Retrieval:
    """Read images/<category>_<name>, sorted by the number of the category."""
    place = places.place("gpr1200")
    table = read_table(place if is_table(place, "images") else folder_with(places.folder("gpr1200"), "images"))
    labels = [label or _category(name, place) for label, name in zip(table.labels, table.ids, strict=True)]
    if not all(label.isdecimal() for label in labels):
        wrong = next(label for label in labels if not label.isdecimal())
        raise DataError(f"{place}: the category {wrong!r} is not a number from 0 to 1199.")
    order = sorted(range(len(table)), key=lambda row: (int(labels[row]), table.ids[row]))
    images = relabelled(table, labels).subset(order)
    parts = {name: frozenset(map(str, range(200 * n, 200 * n + 200))) for n, name in enumerate(DOMAINS)}
    return Retrieval(images, parts=parts | {"gpr1000": frozenset(map(str, range(1000)))})


def _category(name: str, place: str) -> str:
    category, separator, _ = name.rpartition("/")[2].partition("_")
    if not separator or not category.isdecimal():
        raise DataError(f"{place}: the file name {name} does not begin with the number of its category and '_'.")
    return category


BENCHMARKS = (
    Benchmark(
        "gpr1200", "GPR1200", "i2i", ("gpr1200",), read, {"queries": 12_000, "classes": 1_200},
        self_match="kept",
    ),
)  # fmt: skip
