"""Every reader on a folder in the official layout: what is a query, what a gallery image, and what is relevant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mcip.core.errors import DataError, McipError
from mcip.data import Table
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Classification, ComposedRetrieval, Data, Retrieval, TextRetrieval
from mcip.evaluation.dataset_roots import FOLDERS, Places
from mcip.evaluation.presets import PAPER, STANDARD
from tests.evaluation import layouts
from tests.evaluation.layouts import read


def tables(data: Data) -> list[Table]:
    if isinstance(data, Retrieval):
        return [data.queries, *data.gallery]
    if isinstance(data, Classification):
        return [data.train, data.test]
    if isinstance(data, ComposedRetrieval):
        return [data.queries, data.gallery]
    return list(data.gallery) if isinstance(data, TextRetrieval) else [data.images]


@pytest.mark.parametrize("preset", ["paper", "standard"])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_layouts_are_read_and_their_counts_checked(benchmarks: Path, name: str, preset: str) -> None:
    data = read(benchmarks, name, preset)
    for table in tables(data):
        assert len(set(table.ids)) == len(table)
        assert not any("/._" in image or image.startswith("._") for image in table.ids)
    with pytest.raises(
        DataError, match=r"is not the official release: .* where there must be .*--allow-counts"
    ) as raised:
        BENCHMARKS[name].check(data)
    for what, official in BENCHMARKS[name].counts.items():
        assert f"{data.counts[what]:,} {what}" in str(raised.value)
        assert f"{np.ravel(official)[0]:,}" in str(raised.value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_counts_pass(name: str) -> None:
    counts = {what: int(np.ravel(count)[-1]) for what, count in BENCHMARKS[name].counts.items()}
    official: Any = SimpleNamespace(counts=counts)
    BENCHMARKS[name].check(official)
    counts[next(iter(counts))] += 1
    assert len(BENCHMARKS[name].wrong_counts(official)) == 1


def test_gpr1200_goes_by_the_number_of_the_category(benchmarks: Path) -> None:
    data = read(benchmarks, "gpr1200")
    assert data.queries.labels == [c for c in ("0", "7", "250", "1000", "1199") for _ in range(4)]
    assert "images" not in data.queries.ids[0]
    assert "250" in data.parts["nature"]
    assert "1000" in data.parts["faces"]
    assert "1000" not in data.parts["gpr1000"]
    assert [data.queries.image(row).mode for row in range(4)] == ["RGB"] * 4


def test_gpr1200_refuses_names_without_a_category(tmp_path: Path) -> None:
    layouts.gpr1200(tmp_path)
    layouts.write_image(tmp_path / "GPR1200" / "images" / "holiday.jpg")
    with pytest.raises(DataError, match=r"the file name holiday\.jpg does not begin with the number"):
        read(tmp_path, "gpr1200")


def test_instre_folders_of_one_name_are_one_class_for_the_paper_only(benchmarks: Path) -> None:
    paper, standard = read(benchmarks, "instre"), read(benchmarks, "instre", "standard")
    assert paper.counts == {"queries": 12, "classes": 3}
    assert standard.counts == {"queries": 12, "classes": 4}
    assert set(paper.queries.labels) == {"01_book", "02_cup", "01"}
    assert "INSTRE-S2/01_book" in standard.queries.labels


def test_instre_refuses_what_is_in_no_part(tmp_path: Path) -> None:
    layouts.instre(tmp_path)
    layouts.write_image(tmp_path / "INSTRE" / "extra" / "x.jpg")
    with pytest.raises(DataError, match=r"extra/x\.jpg is in none of the folders INSTRE-S1"):
        read(tmp_path, "instre")


def test_classic_instre_counts_from_one_and_crops_for_the_standard(benchmarks: Path) -> None:
    data = read(benchmarks, "instre-classic")
    assert data.counts["queries"] == 2
    assert data.gallery[0].ids[:2] == ["INSTRE-S1/01_book/001.jpg", "INSTRE-S1/01_book/002.jpg"]
    assert [one["easy"] for one in data.truth] == [[0, 1], [2, 3]]
    assert data.gallery[0].ids[2] == "INSTRE-S1/02_cup/001.jpg"
    assert data.queries.image(0).size == (24, 18)
    cropped = read(benchmarks, "instre-classic", "standard").queries
    assert cropped.image(0).size == (10, 8)
    whole = np.asarray(data.queries.image(0))
    np.testing.assert_array_equal(np.asarray(cropped.image(0)), whole[3:11, 2:12])


def test_fine_grained_sets_keep_the_last_classes(benchmarks: Path) -> None:
    birds = read(benchmarks, "cub")
    assert sorted(set(birds.queries.labels)) == ["101.Bird_100", "102.Bird_101", "103.Bird_102", "104.Bird_103"]
    assert birds.counts == {"queries": 8, "classes": 4}
    assert read(benchmarks, "cars").counts == {"queries": 6, "classes": 3}
    products = read(benchmarks, "sop")
    assert products.queries.labels == ["11319", "11319", "11320", "11320", "11321", "11321"]
    assert products.ks == (1, 10, 100, 1000)


def test_cars_of_both_layouts_are_the_same(benchmarks: Path, tmp_path: Path) -> None:
    layouts.cars(tmp_path, official=False)
    folders, official = read(tmp_path, "cars").queries, read(benchmarks, "cars").queries
    one, other = ([np.asarray(table.image(row)) for row in range(len(table))] for table in (folders, official))
    np.testing.assert_array_equal(one, other)
    assert len(set(zip(folders.labels, official.labels, strict=True))) == 3


def test_sop_refuses_another_list(tmp_path: Path) -> None:
    layouts.sop(tmp_path)
    (tmp_path / "Stanford_Online_Products" / "Ebay_test.txt").write_text("a b\n1 2\n")
    with pytest.raises(DataError, match="must have the columns image_id, class_id"):
        read(tmp_path, "sop")


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
def test_revisited_truth_and_crops(tmp_path: Path, protocol: int) -> None:
    layouts.revisited(tmp_path, protocol=protocol)
    data = read(tmp_path, "roxford")
    assert data.counts == {"queries": 2, "gallery": 7, "classes": 0}
    assert data.truth == [{"easy": [0, 1], "hard": [2], "junk": [3]}, {"easy": [], "hard": [4], "junk": []}]
    assert data.queries.ids == ["jpg/christ_church_000179.jpg", "jpg/oriel_000001.jpg"]
    cropped = read(tmp_path, "roxford", "standard").queries
    assert [cropped.image(row).size for row in range(2)] == [(10, 8), (24, 18)]
    np.testing.assert_array_equal(np.asarray(cropped.image(0)), np.asarray(data.queries.image(0))[3:11, 2:12])


def test_revisited_distractors_stand_behind_the_gallery(benchmarks: Path) -> None:
    places = Places(str(benchmarks))
    plain = BENCHMARKS["rparis"].read(places, PAPER)
    large = BENCHMARKS["rparis-1m"].read(places, PAPER)
    assert isinstance(large, Retrieval)
    assert isinstance(plain, Retrieval)
    assert large.counts["gallery"] == plain.counts["gallery"] + 4
    assert large.gallery[0] is plain.gallery[0]
    assert large.truth == plain.truth


def test_a_box_outside_its_image_is_an_error(tmp_path: Path) -> None:
    layouts.revisited(tmp_path)
    layouts.write_image(tmp_path / "roxford5k" / "jpg" / "christ_church_000179.jpg", size=(2, 2))
    with pytest.raises(DataError, match=r"the box \[2.2, 3.0, 12.4, 11.0\] of jpg/christ_church_000179.jpg"):
        read(tmp_path, "roxford", "standard")


def test_a_query_that_cannot_be_decoded_stays_one(tmp_path: Path) -> None:
    layouts.revisited(tmp_path)
    (tmp_path / "roxford5k" / "jpg" / "oriel_000001.jpg").write_bytes(b"cut off")
    queries = read(tmp_path, "roxford", "standard").queries
    with pytest.raises(DataError, match="not an image"):
        queries.image(1)


def test_adience_goes_by_the_person(benchmarks: Path, tmp_path: Path) -> None:
    assert read(benchmarks, "adience").queries.labels == ["1", "2", "1", "2"]
    layouts.write_image(tmp_path / "adience" / "faces" / "7@N00" / "face.jpg")
    with pytest.raises(DataError, match=r"face.jpg is not <kind>.<person>.<image>.jpg"):
        read(tmp_path, "adience")


def test_ilias_images_texts_and_distractors(benchmarks: Path) -> None:
    images, large, texts = (read(benchmarks, name) for name in ("ilias-core", "ilias", "ilias-core-t2i"))
    assert images.queries.labels == ["bold_bimp_000", "zippy_zoot_001"]
    assert images.gallery[0].labels == ["bold_bimp_000"] * 2 + ["zippy_zoot_001"] * 2
    assert images.at == 1000
    assert [table.labels for table in large.gallery[1:]] == [[None] * 3]
    assert texts.texts == ("A toy number 0, in red.", "A toy number 1, in red.")
    assert texts.labels == ("bold_bimp_000", "zippy_zoot_001")


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("flickr30k", "flickr30k/flickr30k_test_karpathy.txt", "the line 'nonsense' is not <image>.jpg,<caption>"),
        ("coco", "coco/coco_test_karpathy.json", "is not valid JSON"),
        ("zero-shot-objectnet", "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json", "is not valid JSON"),
        ("knn-aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt", "a line is the number of an image"),
        ("roxford", "roxford5k/gnd_roxford5k.pkl", "is cut off or not a pickle"),
    ],
)
def test_damaged_lists_are_named(tmp_path: Path, name: str, file: str, message: str) -> None:
    layouts.everything(tmp_path)
    (tmp_path / file).write_text("head\nnonsense\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path, name)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=r"There is no file|has no folder"):
        read(tmp_path, name)


def test_images_that_are_missing_count_as_unreadable(tmp_path: Path) -> None:
    layouts.revisited(tmp_path)
    gallery = read(tmp_path, "roxford").gallery[0]
    with pytest.raises(DataError, match="no file"):
        gallery.image(6)


def test_places_by_folder_and_by_file(benchmarks: Path, tmp_path: Path) -> None:
    found = Places(str(benchmarks))
    assert [name for name in FOLDERS if found.missing(name)] == []
    listed = tmp_path / "places.yaml"
    listed.write_text(f"gpr1200: {benchmarks / 'GPR1200'}\nflickr30k: owner/flickr30k\n")
    places = Places(str(listed))
    assert places.place("gpr1200") == str(benchmarks / "GPR1200")
    assert places.place("flickr30k") == "owner/flickr30k"
    assert places.missing("coco") == f"{listed} has no folder coco or mscoco or mscoco_captions"
    with pytest.raises(DataError, match="owner/flickr30k is not a folder"):
        places.folder("flickr30k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpr120: x", "no data set 'gpr120'; there are gpr1200"),
        ("- a", "one `data set: place` per line"),
        ("{", "cannot read"),
    ],
)
def test_wrong_places(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "places.yaml"
    path.write_text(text)
    with pytest.raises(McipError, match=message):
        Places(str(path))
    with pytest.raises(McipError, match="There is no folder"):
        Places(str(tmp_path / "nowhere"))


def test_presets_differ_as_they_say() -> None:
    assert (PAPER.image_transform, PAPER.text_transform) == ("paper", "model")
    assert (STANDARD.image_transform, STANDARD.text_transform) == ("model", "model")
    assert STANDARD.exclude_self
    assert not PAPER.exclude_self


def test_icir_lists_an_image_for_several_texts_of_its_object(benchmarks: Path) -> None:
    data = read(benchmarks, "icir")
    assert data.texts == ("at night", "as a toy, in red") * 2
    assert data.objects == ("temple", "temple", "toy_bear", "toy_bear")
    shown = [(data.gallery.ids[row], text) for row, text in data.entries["temple"]]
    assert shown[:2] == [("database/temple/0_0.jpg", "at night"), ("database/temple/0_1.jpg", "at night")]
    assert ("database/temple/0_0.jpg", "as a toy, in red") in shown
    assert [text for _, text in shown].count("") == 3


def test_icir_without_a_gallery_for_a_query_is_refused(tmp_path: Path) -> None:
    layouts.icir(tmp_path)
    lists = tmp_path / "icir" / "database_files.csv"
    lists.write_text("\n".join(line for line in lists.read_text().splitlines() if "toy_bear" not in line))
    with pytest.raises(DataError, match="no image for the queries of 'toy_bear'"):
        read(tmp_path, "icir")
    lists.write_text("icir/elsewhere/a.jpg,at night,temple\n")
    with pytest.raises(DataError, match=r"is not database/<image>,<text>,<object>"):
        read(tmp_path, "icir")
