"""Small folders in the official layout of each benchmark, with the odd files that the real ones have."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.imagenet import WNIDS
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.presets import PRESETS
from tests.images import noise_image

MODES = ("RGB", "L", "CMYK")


def write_image(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (24, 18)) -> str:
    """Write an image of noise; its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image(seed, *size).convert(mode).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")
    return path.name


def junk(folder: Path) -> None:
    """What macOS and servers leave among the files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "._001.jpg").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".DS_Store").write_bytes(b"\x00")
    (folder / "Thumbs.db").write_bytes(b"\x00")


def gpr1200(root: Path, categories: tuple[int, ...] = (0, 7, 250, 1000, 1199), images: int = 4) -> None:
    """images/<category>_<name>, in three modes and with upper-case suffixes."""
    for category in categories:
        for number in range(images):
            suffix = ".JPG" if number == 1 else ".jpg"
            path = root / "GPR1200" / "images" / f"{category}_{category * 7 + number}_x{suffix}"
            write_image(path, 100 * category + number, MODES[number % 3])
    junk(root / "GPR1200" / "images")


def icir(root: Path) -> None:
    """Two objects with two queries each; one gallery image is relevant to both texts of its object."""
    folder, query, gallery = root / "icir", [], []
    for number, label in enumerate(("temple", "toy_bear")):
        for at, text in enumerate(("at night", "as a toy, in red")):
            query.append((f"icir/query/{label}/{at}.jpg", text, label))
            gallery += [(f"icir/database/{label}/{at}_{copy}.jpg", text, label) for copy in range(2)]
        gallery.append((f"icir/database/{label}/0_0.jpg", "as a toy, in red", label))
        gallery += [(f"icir/database/{label}/hard_{copy}.jpg", "", label) for copy in range(3 + number)]
    for name, lines in (("query", query), ("database", gallery)):
        for seed, (image, _, _) in enumerate(lines):
            write_image(root / image, 1000 * len(lines) + seed)
        with (folder / f"{name}_files.csv").open("w", newline="") as file:
            csv.writer(file).writerows(lines)


def instre(root: Path) -> None:
    """Three parts; S1 and S2 share the folder name 01_book. With boxes, and gnd_instre.mat for the classic protocol."""
    names: list[str] = []
    for part, folder in (("S1", "01_book"), ("S1", "02_cup"), ("S2", "01_book"), ("M", "01")):
        for number in range(3):
            name = f"INSTRE-{part}/{folder}/{number:03d}.jpg"
            write_image(root / "INSTRE" / name, len(names))
            (root / "INSTRE" / name).with_suffix(".txt").write_text("2 3 10 8\n")
            names.append(name)
        junk(root / "INSTRE" / f"INSTRE-{part}" / folder)
    queries = [names[0], names[3]]
    index = [name for name in names if name not in queries]
    truth = np.empty((1, 2), dtype=[("ok", object), ("bbx", object)])
    for place, (positives, box) in enumerate((([1, 2], [2, 3, 12, 11]), ([3, 4], [0, 0, 24, 18]))):
        truth[0, place] = (np.array([positives], np.uint16), np.array([box], np.float64))
    lists = {"qimlist": np.array([queries], object), "imlist": np.array([index], object)}
    savemat(root / "INSTRE" / "gnd_instre.mat", {**lists, "gnd": truth})


def cub(root: Path, classes: int = 104) -> None:
    """images/<NNN.Name>/<image>, two of each class; one name is in two classes."""
    for number in range(classes):
        folder = root / "CUB_200_2011" / "images" / f"{number + 1:03d}.Bird_{number}"
        for image in range(2):
            write_image(folder / f"Bird_{image}.jpg", 2 * number + image, size=(8, 8))
    junk(root / "CUB_200_2011" / "images" / "101.Bird_100")


def cars(root: Path, official: bool = True, classes: int = 101) -> None:
    """car_ims with cars_annos.mat, or one folder per class."""
    entries = []
    for number in range(classes):
        for image in range(2):
            name = f"car_ims/{2 * number + image + 1:06d}.jpg" if official else f"{number:03d} Car/{image}.jpg"
            write_image(root / "cars196" / name, 2 * number + image, size=(8, 8))
            entries.append((name, 1, 1, 7, 7, number + 1, 0))
    if official:
        fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
        annotations = np.empty((1, len(entries)), dtype=[(name, object) for name in fields])
        for place, entry in enumerate(entries):
            annotations[0, place] = entry
        savemat(root / "cars196" / "cars_annos.mat", {"annotations": annotations})


def sop(root: Path) -> None:
    """Ebay_test.txt and a folder per super-class."""
    lines = ["image_id class_id super_class_id path"]
    for number in range(6):
        name = f"bicycle_final/{111 + number}_0.JPG"
        write_image(root / "Stanford_Online_Products" / name, number)
        lines.append(f"{59551 + number} {11319 + number // 2} 1 {name}")
    (root / "Stanford_Online_Products" / "Ebay_test.txt").write_text("\n".join(lines) + "\n")


TRUTH: list[dict[str, Any]] = [
    {"bbx": [2.2, 3.0, 12.4, 11.0], "easy": np.array([0, 1]), "hard": np.array([2]), "junk": np.array([3])},
    {"bbx": np.array([0.0, 0.0, 24.0, 18.0]), "easy": [], "hard": [4], "junk": np.array([], np.int64)},
]


def revisited(root: Path, data_set: str = "roxford5k", protocol: int = 4) -> None:
    """jpg and the pickle of the ground truth; the last gallery image is missing."""
    names = [f"all_souls_{number:06d}" for number in range(7)]
    queries = ["christ_church_000179", "oriel_000001"]
    for seed, name in enumerate([*names[:-1], *queries]):
        write_image(root / data_set / "jpg" / f"{name}.jpg", seed)
    content = {"gnd": TRUTH, "imlist": names, "qimlist": queries}
    (root / data_set / f"gnd_{data_set}.pkl").write_bytes(pickle.dumps(content, protocol))


def revisitop1m(root: Path) -> None:
    """Distractors in numbered folders."""
    for number in range(4):
        write_image(root / "revisitop1m" / "jpg" / str(number // 2) / f"d{number}.jpg", 50 + number)
    (root / "revisitop1m" / "revisitop1m.txt").write_text("0/d0.jpg\n0/d1.jpg\n1/d2.jpg\n1/d3.jpg\n")


def adience(root: Path) -> None:
    """faces/<user>/coarse_tilt_aligned_face.<person>.<image>.jpg."""
    for number, (user, person) in enumerate((("7@N00", 1), ("7@N00", 2), ("8@N00", 1), ("8@N00", 2))):
        name = f"coarse_tilt_aligned_face.{person}.103_{number}_o.jpg"
        write_image(root / "Adience" / "faces" / user / name, number)


def ilias(root: Path) -> None:
    """ilias_core with queries, texts, positives and boxes, and distractors as images."""
    for number, name in enumerate(("bold_bimp_000", "zippy_zoot_001")):
        folder = root / "ilias" / "ilias_core" / name
        write_image(folder / "query" / f"Q{number:03d}_00.jpg", number)
        (folder / "query" / f"Q{number:03d}_00_bbox.txt").write_text("1 1 5 5\n")
        (folder / "query" / f"T{number:03d}.txt").write_text(f"A toy number {number},\nin red.\n")
        for image in range(2):
            write_image(folder / "pos" / f"P{number:03d}_{image:02d}.jpg", 10 + 2 * number + image)
        junk(folder / "pos")
    for number in range(3):
        write_image(root / "ilias" / "yfcc100m" / "00" / f"{number}.jpg", 30 + number)


def imagenet(root: Path, classes: int = 4) -> None:
    """{train,val}/<wnid>/*.JPEG."""
    for split, count in (("train", 3), ("val", 2)):
        for place in range(classes):
            for number in range(count):
                name = f"{WNIDS[place]}_{number}.JPEG"
                write_image(root / "imagenet" / split / WNIDS[place] / name, 10 * place + number, MODES[number % 3])
    (root / "imagenet" / "ILSVRC2012_img_val.tar").write_bytes(b"what the folder was unpacked from")


def imagenet_v2(root: Path) -> None:
    """Folders named 0 to 999, of which some are here, in the order in which text sorts them."""
    for number in (0, 2, 10, 999):
        for image in range(2):
            folder = root / "imagenetv2-matched-frequency-format-val" / str(number)
            write_image(folder / f"{image}.jpeg", number + image)


def imagenet_variant(root: Path, name: str, places: tuple[int, ...] = (1, 2)) -> None:
    """Folders named by wnid, with a README beside them."""
    for place in places:
        for number in range(2):
            write_image(root / name / WNIDS[place] / f"{number}.JPEG", 500 + 10 * place + number, MODES[number])
    (root / name / "README.txt").write_text("n01443537 goldfish\n")


def aircraft(root: Path) -> None:
    """data/images and one list per split; variants have spaces."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    for split, start in (("train", 0), ("test", 4)):
        lines = []
        for number in range(start, start + 4):
            write_image(folder / "images" / f"{1025794 + number:07d}.jpg", number)
            lines.append(f"{1025794 + number:07d} {'BAE 146-200' if number % 2 else 'F/A-18'}")
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")


def flowers(root: Path) -> None:
    """jpg, imagelabels.mat and setid.mat."""
    for number in range(1, 9):
        write_image(root / "flowers-102" / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": np.array([[77, 77, 3, 3, 77, 3, 77, 3]], np.uint8)})
    splits = {"trnid": np.array([[1, 3]]), "valid": np.array([[2, 4]]), "tstid": np.array([[5, 6, 7, 8]])}
    savemat(root / "flowers-102" / "setid.mat", splits)


def objectnet(root: Path) -> None:
    """images by folder and the two mappings; one class is not ImageNet's."""
    folder = root / "objectnet-1.0"
    labels = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "backpack": "Backpack", "tv": "TV"}
    for place, name in enumerate(labels):
        for number in range(2):
            write_image(folder / "images" / name / f"{number:08x}.png", 10 * place + number)
    (folder / "mappings").mkdir()
    (folder / "mappings" / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    shared = {"Alarm clock": "analog clock; digital clock", "Backpack": "backpack, back pack", "TV": "television"}
    (folder / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shared))


CAPTIONS = ("A dog, and a cat.", "Two DOGS run")


def flickr30k(root: Path) -> None:
    """flickr30k_test_karpathy.txt with commas in captions, and the images."""
    lines = ["image,caption"]
    for number in range(3):
        name = write_image(root / "flickr30k" / "flickr30k-images" / f"{1007129816 + number}.jpg", number)
        lines += [f"{name},{caption} {number}" for caption in CAPTIONS]
    (root / "flickr30k" / "flickr30k_test_karpathy.txt").write_text("\n".join(lines) + "\n")


def coco(root: Path, karpathy_file: bool = False) -> None:
    """coco_test_karpathy.json, or Karpathy's own dataset_coco.json, and val2014."""
    names = [f"COCO_val2014_{391895 + number:012d}.jpg" for number in range(3)]
    for number, name in enumerate(names):
        write_image(root / "coco" / "val2014" / name, number)
    if karpathy_file:
        entries = [
            {"filename": name, "filepath": "val2014", "split": "test" if number else "train",
             "sentences": [{"raw": caption} for caption in CAPTIONS]}
            for number, name in enumerate(names)
        ]  # fmt: skip
        (root / "coco" / "dataset_coco.json").write_text(json.dumps({"images": entries}))
        return
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": n, "id": n, "caption": f"{CAPTIONS[n % 2]} {n}\n"} for n in (0, 1, 2, 0)],
    }
    (root / "coco" / "coco_test_karpathy.json").write_text(json.dumps(content))


def everything(root: Path) -> Path:
    """All benchmarks in one folder."""
    gpr1200(root)
    instre(root)
    cub(root)
    cars(root)
    sop(root)
    revisited(root, "roxford5k")
    revisited(root, "rparis6k")
    revisitop1m(root)
    adience(root)
    ilias(root)
    icir(root)
    imagenet(root)
    imagenet_v2(root)
    for name in ("imagenet-sketch", "imagenet-a", "imagenet-r"):
        imagenet_variant(root, name)
    aircraft(root)
    flowers(root)
    objectnet(root)
    flickr30k(root)
    coco(root)
    return root


def read(root: Path, name: str, preset: str = "paper") -> Any:
    """The data of a benchmark that lies in a folder."""
    return BENCHMARKS[name].read(Places(str(root)), PRESETS[preset])  # type: ignore[index]
