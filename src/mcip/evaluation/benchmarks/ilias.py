"""ILIAS: 1,000 objects, found by image and by text among images of them and 100 million distractors.

Kordopatis-Zilos et al., "ILIAS: Instance-Level Image retrieval At Scale", CVPR 2025, arXiv 2502.11748.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mcip.data import Table, read_table
from mcip.evaluation.benchmarks.base import Benchmark, Retrieval, TextRetrieval
from mcip.evaluation.benchmarks.files import files_table, folder_with, lines_of, relabelled
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset

_AT = 1_000


def read_images(distractors: bool, places: Places, preset: Preset) -> Retrieval:
    """Read ilias_core/<object>/query/Q*.jpg and pos/P*.jpg; a distractor table for each tar of yfcc100m."""
    root = folder_with(places.folder("ilias"), "ilias_core")
    return Retrieval(_images(root, "query", "Q"), _gallery(places, root, distractors), at=_AT)


def read_texts(distractors: bool, places: Places, preset: Preset) -> TextRetrieval:
    """Read ilias_core/<object>/query/T*.txt, a text an object, and the same gallery."""
    root = folder_with(places.folder("ilias"), "ilias_core")
    files = sorted(root.glob("*/query/T*.txt"))
    texts = tuple(" ".join(lines_of(file)) for file in files)
    labels = tuple(file.parent.parent.name for file in files)
    return TextRetrieval(texts, labels, _gallery(places, root, distractors), _AT)


def _gallery(places: Places, root: Path, distractors: bool) -> tuple[Table, ...]:
    positives = places.once("positives of ilias", lambda: _images(root, "pos", "P"))
    if not distractors:
        return (positives,)
    return (positives, *places.once("yfcc100m", partial(_yfcc, places.folder("yfcc100m"))))


def _images(root: Path, folder: str, letter: str) -> Table:
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.glob(f"*/{folder}/{letter}*")
        if file.suffix.lower() in (".jpg", ".jpeg")
    )
    return files_table(root, names, [name.partition("/")[0] for name in names])


def _yfcc(folder: Path) -> tuple[Table, ...]:
    """A table for each tar, so that each has its embeddings; one for a folder of images."""
    tables = [read_table(source) for source in sorted(folder.glob("*.tar")) or [folder]]
    # What a table may have as a label, a folder's name for instance, is none of an object.
    return tuple(relabelled(table, [None] * len(table)) for table in tables)


def _benchmarks(name: str, title: str, distractors: bool) -> tuple[Benchmark, Benchmark]:
    gallery, metric = 4_715 + (100_000_000 if distractors else 0), f"map@{_AT}"
    needs = ("ilias", "yfcc100m") if distractors else ("ilias",)
    images, texts = partial(read_images, distractors), partial(read_texts, distractors)
    return (
        Benchmark(name, title, "i2i", needs, images, {"queries": 1_232, "gallery": gallery}, metric),
        Benchmark(f"{name}-t2i", f"{title} T2I", "t2i", needs, texts, {"queries": 1_000, "gallery": gallery}, metric),
    )


BENCHMARKS = (*_benchmarks("ilias-core", "ILIAS core", False), *_benchmarks("ilias", "ILIAS", True))
