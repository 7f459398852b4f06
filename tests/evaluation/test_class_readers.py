"""Readers of the benchmarks for k-NN, zero-shot and captions, on folders in the official layout."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mcip.core.errors import DataError, McipError
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Classification, CrossModal, ZeroShot
from mcip.evaluation.benchmarks.imagenet import WNIDS
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import PAPER
from tests.evaluation import layouts
from tests.evaluation.layouts import read


def test_imagenet_shares_its_training_images_and_goes_by_wnid(benchmarks: Path) -> None:
    places = Places(str(benchmarks))
    val, sketch = (BENCHMARKS[f"knn-imagenet{name}"].read(places, PAPER) for name in ("", "-sketch"))
    assert isinstance(val, Classification)
    assert isinstance(sketch, Classification)
    assert val.train is sketch.train
    assert val.counts == {"train": 12, "test": 8, "classes": 4}
    assert set(sketch.test.labels) == {WNIDS[1], WNIDS[2]}


def test_imagenet_v2_folders_are_numbers(benchmarks: Path) -> None:
    table = read(benchmarks, "knn-imagenet-v2").test
    assert {image.split("/")[-2]: label for image, label in zip(table.ids, table.labels, strict=True)} == {
        str(number): WNIDS[number] for number in (0, 2, 10, 999)
    }


def test_zero_shot_masks_only_a_and_r(benchmarks: Path) -> None:
    for name in ("imagenet-a", "imagenet-r"):
        assert read(benchmarks, f"zero-shot-{name}").candidates == (WNIDS[1], WNIDS[2])
    for name in ("imagenet", "imagenet-v2", "imagenet-sketch"):
        data = read(benchmarks, f"zero-shot-{name}")
        assert data.candidates is None
        assert list(data.names) == list(WNIDS)
    assert data.names["n01440764"] == "tench"
    assert data.names["n15075141"] == "toilet paper"


@pytest.mark.parametrize(("folder", "named"), [("n99999999", "n99999999"), ("1000", "1000"), ("", "without a folder")])
def test_folders_that_are_no_imagenet_class(tmp_path: Path, folder: str, named: str) -> None:
    layouts.write_image(tmp_path / "imagenet-a" / folder / "0.jpg")
    with pytest.raises(DataError, match=f"{named}.* is no ImageNet class"):
        read(tmp_path, "zero-shot-imagenet-a")


def test_imagenet_as_tars_with_numbers_as_labels(tmp_path: Path) -> None:
    source = tmp_path / "0.jpg"
    layouts.write_image(source)
    (tmp_path / "0.cls").write_text("999")
    folder = tmp_path / "imagenet-r"
    folder.mkdir()
    with tarfile.open(folder / "test-0.tar", "w") as archive:
        archive.add(source, "0.jpg")
        archive.add(tmp_path / "0.cls", "0.cls")
    assert read(tmp_path, "zero-shot-imagenet-r").images.labels == [WNIDS[999]]


def test_aircraft_and_flowers(benchmarks: Path, tmp_path: Path) -> None:
    planes = read(benchmarks, "knn-aircraft")
    assert planes.train.labels == ["F/A-18", "BAE 146-200"] * 2
    assert planes.test.ids[0] == "images/1025798.jpg"
    plants = read(benchmarks, "knn-flowers")
    assert (plants.train.labels, plants.test.labels) == (["77", "3"], ["77", "3", "77", "3"])
    assert plants.test.ids[0] == "jpg/image_00005.jpg"
    layouts.flowers(tmp_path)
    (tmp_path / "flowers-102" / "setid.mat").write_bytes(b"not a MATLAB file")
    with pytest.raises(DataError, match=r"setid.mat is damaged or not a MATLAB 5 file"):
        read(tmp_path, "knn-flowers")


def test_without_scipy_the_extra_is_named(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(McipError, match=r"pip install 'mcip\[benchmarks\]'"):
        read(benchmarks, "knn-flowers")


def test_objectnet_keeps_the_classes_shared_with_imagenet(benchmarks: Path) -> None:
    data = read(benchmarks, "zero-shot-objectnet")
    assert data.names == {"alarm_clock": "alarm clock", "backpack": "backpack", "tv": "tv"}
    assert data.images.labels == ["alarm_clock"] * 2 + ["backpack"] * 2 + ["tv"] * 2
    assert data.counts == {"images": 6, "classes": 3}


def test_captions_keep_their_commas_and_case(benchmarks: Path, tmp_path: Path) -> None:
    data = read(benchmarks, "flickr30k")
    assert data.images.captions[1] == ["A dog, and a cat. 1", "Two DOGS run 1"]
    assert data.counts == {"images": 3, "captions": 6}
    assert read(benchmarks, "coco").images.captions == [
        ["A dog, and a cat. 0", "A dog, and a cat. 0"], ["Two DOGS run 1"], ["A dog, and a cat. 2"],
    ]  # fmt: skip
    layouts.coco(tmp_path, karpathy_file=True)
    other = read(tmp_path, "coco")
    assert other.images.ids == [f"val2014/COCO_val2014_{391895 + n:012d}.jpg" for n in (1, 2)]
    assert other.images.captions == [list(layouts.CAPTIONS)] * 2


def test_captions_as_a_table_may_be_lines_of_one_text(tmp_path: Path) -> None:
    layouts.write_image(tmp_path / "a.png")
    rows = {"image": [(tmp_path / "a.png").read_bytes()], "captions": [["one\ntwo\n"]], "split": ["test"]}
    (tmp_path / "flickr30k").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "flickr30k" / "test.parquet")
    data = read(tmp_path, "flickr30k")
    assert isinstance(data, CrossModal)
    assert data.images.captions == [["one", "two"]]


def test_zero_shot_data_are_what_the_reader_says(benchmarks: Path) -> None:
    assert isinstance(read(benchmarks, "zero-shot-imagenet"), ZeroShot)
    with Image.open(benchmarks / "imagenet" / "val" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG") as grey:
        assert grey.mode == "L"
