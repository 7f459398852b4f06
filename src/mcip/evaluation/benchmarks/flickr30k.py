"""Flickr30k: Karpathy's 1,000 test images with five captions each.

Young et al., "From Image Descriptions to Visual Denotations", TACL 2014.
"""

from __future__ import annotations

from pathlib import Path

from mcip.core.errors import DataError
from mcip.evaluation.benchmarks.base import Benchmark, CrossModal
from mcip.evaluation.benchmarks.files import is_table, lines_of
from mcip.evaluation.benchmarks.karpathy import from_split_file, from_table, grouped
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset

_FOLDERS = ("flickr30k-images", "flickr30k_images", "images", "Images")


def read(places: Places, preset: Preset) -> CrossModal:
    """Read flickr30k_test_karpathy.txt or dataset_flickr30k.json, and the folder of the images."""
    place = places.place("flickr30k")
    if is_table(place, "*karpathy*", "dataset_flickr30k.json"):
        return from_table(place)
    root = places.folder("flickr30k")
    folder = next((name for name in _FOLDERS if (root / name).is_dir()), "")
    lists = root / "flickr30k_test_karpathy.txt"
    if not lists.is_file():
        return from_split_file(root, root / "dataset_flickr30k.json", folder)
    return CrossModal(grouped(root, [_pair(line, folder, lists) for line in lines_of(lists)[1:]]))


def _pair(line: str, folder: str, path: Path) -> tuple[str, str]:
    # Captions have commas, so that the line is split after the file name.
    name, separator, caption = line.partition(".jpg,")
    if not separator:
        raise DataError(f"{path}: the line {line!r} is not <image>.jpg,<caption>.")
    return f"{folder}/{name}.jpg".lstrip("/"), caption.strip()


_COUNTS = {"images": 1_000, "captions": 5_000}

BENCHMARKS = (
    Benchmark("flickr30k", "Flickr30k", "t2i", ("flickr30k",), read, _COUNTS),
    Benchmark("flickr30k-i2t", "Flickr30k I2T", "i2t", ("flickr30k",), read, _COUNTS),
)
