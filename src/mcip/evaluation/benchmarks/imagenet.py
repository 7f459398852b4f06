"""ImageNet and its variants: k-NN against the training images, and zero-shot by class names.

Russakovsky et al., IJCV 2015 (ImageNet); Recht et al., ICML 2019 (V2); Wang et al., NeurIPS 2019 (Sketch); Hendrycks et
al., CVPR 2021 (A) and ICCV 2021 (R). The class names are open_clip's, those of Radford et al., ICML 2021.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from open_clip import IMAGENET_CLASSNAMES
from timm.data.imagenet_info import ImageNetInfo

from mcip.core.errors import DataError
from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import Benchmark, Classification, ZeroShot
from mcip.evaluation.benchmarks.files import is_table, relabelled, table_split
from mcip.evaluation.dataset_roots import AbsentError, Places
from mcip.evaluation.presets import Preset

# The wnids of the 1,000 classes; the number of a class is its place among them, in sorted order.
WNIDS: Final[tuple[str, ...]] = tuple(sorted(ImageNetInfo("imagenet-1k").label_names()))  # type: ignore[no-untyped-call]
_NAMES: Final = dict(zip(WNIDS, IMAGENET_CLASSNAMES, strict=True))
_CLASSES: Final = frozenset(WNIDS)


def images(data_set: str, split: str, places: Places) -> Table:
    """The images of one split, labelled by wnid; every data set but ImageNet itself has one split only.

    Class folders are wnids or, as in V2's official release, numbers from 0 to 999; in tars and tables so are labels.
    """

    def make() -> Table:
        place = places.place(data_set)
        if is_table(place, *((split,) if data_set == "imagenet" else ("n0*", "n1*", "0", "imagenetv2-*", "sketch"))):
            table = table_split(place, split)
        elif data_set == "imagenet":
            folder = places.folder(data_set) / split
            if not folder.is_dir():
                raise AbsentError(f"{place} has no folder {split} with a folder per class.")
            table = read_table(folder)
        else:
            table = read_table(Path(place))
        return relabelled(table, [_wnid(label, table.name) for label in table.labels])

    return places.once(f"{data_set} {split}", make)


def _wnid(label: str | None, where: str) -> str:
    folder = (label or "").rpartition("/")[2]
    if folder in _CLASSES:
        return folder
    if folder.isdecimal() and int(folder) < len(WNIDS):
        return WNIDS[int(folder)]
    raise DataError(
        f"{where}: {folder or 'an image without a folder'} is no ImageNet class: class folders are wnids such as "
        "n01440764, or numbers from 0 to 999."
    )


def read_knn(data_set: str, split: str, places: Places, preset: Preset) -> Classification:
    """All 1,000 classes of the training images vote, whatever the data set."""
    return Classification(train=images("imagenet", "train", places), test=images(data_set, split, places))


def read_zero_shot(data_set: str, split: str, places: Places, preset: Preset) -> ZeroShot:
    """Choose among the classes that the data set has: the 200 of A and R, all 1,000 of the others."""
    table = images(data_set, split, places)
    found = set(table.labels)
    few = data_set in ("imagenet-a", "imagenet-r")
    return ZeroShot(table, _NAMES, tuple(wnid for wnid in WNIDS if wnid in found) if few else None)


def _benchmarks(name: str, title: str, test_images: int, classes: int) -> tuple[Benchmark, Benchmark]:
    split = "val" if name == "imagenet" else "test"
    return (
        Benchmark(
            f"knn-{name}", f"k-NN {title}", "knn", tuple(dict.fromkeys(("imagenet", name))),
            partial(read_knn, name, split), {"train": 1_281_167, "test": test_images, "classes": 1_000},
        ),
        Benchmark(
            f"zero-shot-{name}", f"zero-shot {title}", "zero-shot", (name,), partial(read_zero_shot, name, split),
            {"images": test_images, "classes": classes},
        ),
    )  # fmt: skip


BENCHMARKS = (
    *_benchmarks("imagenet", "ImageNet", 50_000, 1_000),
    *_benchmarks("imagenet-v2", "ImageNet-V2", 10_000, 1_000),
    *_benchmarks("imagenet-sketch", "ImageNet-Sketch", 50_889, 1_000),
    *_benchmarks("imagenet-a", "ImageNet-A", 7_500, 200),
    *_benchmarks("imagenet-r", "ImageNet-R", 30_000, 200),
)
