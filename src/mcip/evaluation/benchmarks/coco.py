"""COCO captions: Karpathy's 5,000 test images, which are some of val2014, with their 25,010 captions.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", arXiv 1504.00325.
"""

from __future__ import annotations

from mcip.core.errors import DataError
from mcip.evaluation.benchmarks.base import Benchmark, CrossModal
from mcip.evaluation.benchmarks.files import is_table, json_of
from mcip.evaluation.benchmarks.karpathy import from_split_file, from_table, grouped
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import Preset


def read(places: Places, preset: Preset) -> CrossModal:
    """Read coco_test_karpathy.json or dataset_coco.json, and val2014."""
    place = places.place("coco")
    if is_table(place, "*karpathy*", "dataset_coco.json"):
        return from_table(place)
    root = places.folder("coco")
    path = root / "coco_test_karpathy.json"
    if not path.is_file():
        return from_split_file(root, root / "dataset_coco.json", "val2014")
    content = json_of(path)
    try:
        name_of = {image["id"]: f"val2014/{image['file_name'].rpartition('/')[2]}" for image in content["images"]}
        pairs = [(name_of[entry["image_id"]], str(entry["caption"]).strip()) for entry in content["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a COCO annotation file: {error!r}.") from error
    return CrossModal(grouped(root, pairs))


_COUNTS = {"images": 5_000, "captions": 25_010}

BENCHMARKS = (
    Benchmark("coco", "COCO", "t2i", ("coco",), read, _COUNTS),
    Benchmark("coco-i2t", "COCO I2T", "i2t", ("coco",), read, _COUNTS),
)
