"""Looking mined captions up by row: unique captions of a batch, multi-hot targets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcip import models
from mcip.core.errors import ArtefactError
from mcip.data import read_table
from mcip.embeddings.mined_captions import CaptionLookup, MinedCaptions
from mcip.stages.mine import mine
from mcip.stages.tune import tune


def lookup_of(lists: list[list[int]]) -> CaptionLookup:
    offsets = np.cumsum([0, *(len(ids) for ids in lists)]).astype(np.int64)
    return CaptionLookup(offsets[:-1], offsets[1:], np.array([caption for ids in lists for caption in ids], np.int64))


@given(
    lists=st.lists(st.lists(st.integers(0, 12), max_size=5, unique=True), min_size=1, max_size=8),
    data=st.data(),
)
def test_a_batch_equals_a_naive_loop(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
    unique, targets = lookup_of(lists).batch(rows)
    expected = sorted({caption for row in rows for caption in lists[row]})
    assert unique.tolist() == expected
    assert targets.shape == (len(rows), len(expected))
    for place, row in enumerate(rows):
        for column, caption in enumerate(expected):
            assert bool(targets[place, column]) == (caption in lists[row])


def test_a_caption_of_two_images_is_a_positive_of_both() -> None:
    unique, targets = lookup_of([[7, 2], [], [2, 9]]).batch([2, 1, 0])
    assert unique.tolist() == [2, 7, 9]
    assert targets.int().tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 0]]


def test_of_images_follows_the_requested_order(mined: Path, train: Path) -> None:
    captions = MinedCaptions(mined)
    by_id = {row["id"]: row["captions"] for row in captions.images.to_pylist()}
    ids = read_table(train).ids[::-3]
    lookup = captions.of_images(ids)
    for row, image in enumerate(ids):
        assert lookup.ids[lookup.starts[row] : lookup.ends[row]].tolist() == by_id[image]


def test_images_that_were_not_mined_for_are_refused(mined: Path, train: Path, val: Path) -> None:
    ids = [*read_table(train).ids, *read_table(val).ids]
    with pytest.raises(ArtefactError, match=r"no captions for 15 of 47 images, 'val-00000-0' among them"):
        MinedCaptions(mined).of_images(ids)


@pytest.mark.parametrize("name", ["captions.arrow", "images.arrow"])
@pytest.mark.parametrize("keep", [0, 30, None])
def test_files_that_are_cut_off_or_gone_are_named(name: str, keep: int | None, mined: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mined, tmp_path / "mined")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(content[:keep])
    with pytest.raises(ArtefactError, match=rf"{name} is (missing|damaged).* run what makes it again"):
        MinedCaptions(folder)


def test_captions_of_no_image_at_all_are_refused(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    folder = mine(str(train), str(pool), tmp_path / "a", str(base), threshold=1.0)
    with pytest.raises(ArtefactError, match=r"None of the 32 images has a caption .* threshold 1\.0\. Mine again"):
        tune(str(train), tmp_path / "run", str(base), captions=folder)


def test_images_that_could_not_be_read_have_no_captions(mined: Path, train: Path) -> None:
    captions = MinedCaptions(mined)
    captions.artefact.manifest["unreadable"] = {"broken": "truncated"}
    ids = read_table(train).ids[:2]
    lookup = captions.of_images([ids[0], "broken", ids[1]])
    assert (lookup.ends > lookup.starts).tolist() == [True, False, True]
    assert lookup.ids[lookup.starts[2] : lookup.ends[2]].tolist() == captions.images["captions"][1].as_py()


def test_text_embeddings_are_the_models_own_and_made_once(mined: Path, base: Path) -> None:
    model = models.load(base)
    captions = MinedCaptions(mined)
    vectors = captions.text_embeddings(model).array()
    np.testing.assert_allclose(vectors, model.encode(list(captions.captions)), atol=1e-6)
    state = {path: path.stat().st_mtime_ns for path in mined.rglob("*")}
    captions.text_embeddings(model)
    assert {path: path.stat().st_mtime_ns for path in mined.rglob("*")} == state


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="reads in /proc what is in memory")
def test_pages_of_what_was_read_are_given_back(mined: Path, train: Path) -> None:
    captions = MinedCaptions(mined)
    lookup = captions.of_images(read_table(train).ids)
    assert _resident_kb(mined / "images.arrow") == 0
    batch = lookup.batch([3, 5])
    assert _resident_kb(mined / "images.arrow") == 0
    assert len(captions.images["id"].to_pylist()) == 32
    assert _resident_kb(mined / "images.arrow") > 0
    again = lookup.batch([3, 5])
    assert batch[0].tolist() == again[0].tolist()


def _resident_kb(path: Path) -> int:
    """How much of a mapped file counts as memory of this process."""
    kilobytes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes
