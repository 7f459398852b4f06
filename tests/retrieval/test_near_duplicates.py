"""`mcip duplicates`: groups around representatives, exact copies first, and what is written."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError
from mcip.retrieval.index import Index
from mcip.retrieval.near_duplicates import SlotGroup, duplicate_groups
from mcip.retrieval.table import open_table
from mcip.stages.duplicates import duplicates

from .ann.cloud import DIM, new_table, rows, unit

Run = Callable[..., Index]


def threshold_at(index: Index, quantile: float) -> float:
    """Between two cosines of the index that are apart, so that rounding decides nothing."""
    vectors = unit(index.engine.take(np.arange(len(index))))
    cosines = np.sort((vectors @ vectors.T)[~np.eye(len(index), dtype=bool)])
    at = int(quantile * len(cosines))
    gap = at + int(np.argmax(np.diff(cosines[at : at + 8])))
    return float((cosines[gap] + cosines[gap + 1]) / 2)


def naive_groups(index: Index, threshold: float) -> list[SlotGroup]:
    """By the words of `duplicate_groups`, for images of equal size and without copies."""
    vectors = unit(index.engine.take(np.arange(len(index))))
    representatives: list[int] = []
    for slot in range(len(index)):
        if all(float(vectors[slot] @ vectors[other]) < threshold for other in representatives):
            representatives.append(slot)
    members: dict[int, list[tuple[int, float]]] = {slot: [] for slot in representatives}
    for slot in set(range(len(index))) - set(representatives):
        best = max(representatives, key=lambda other: float(vectors[slot] @ vectors[other]))
        members[best].append((slot, float(vectors[slot] @ vectors[best])))
    groups = [SlotGroup(slot, sorted(found, key=lambda m: -m[1]), False) for slot, found in members.items() if found]
    return sorted(groups, key=lambda group: -group.members[-1][1])


@pytest.mark.parametrize("ann", ["exact", "graph"])
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9, 0.99])
def test_every_member_is_near_its_representative(
    ann: str, quantile: float, indexed: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    threshold = threshold_at(index, quantile)
    # Many images have more neighbours than are looked at first.
    monkeypatch.setattr("mcip.retrieval.near_duplicates._NEIGHBOURS", 3)
    monkeypatch.setattr("mcip.retrieval.near_duplicates._EXACT_WORK", 5e13 if ann == "exact" else 0)
    compared: list[int] = []
    groups = duplicate_groups(index.engine, threshold, compared.append)
    expected = naive_groups(index, threshold)
    assert [(g.representative, [m for m, _ in g.members]) for g in groups] == [
        (g.representative, [m for m, _ in g.members]) for g in expected
    ]
    for group, other in zip(groups, expected, strict=True):
        assert [cosine for _, cosine in group.members] == pytest.approx([c for _, c in other.members], abs=1e-3)
        assert group.members[-1][1] >= threshold - 1e-6
    assert sum(compared) == len(index)
    slots = [slot for g in groups for slot in (g.representative, *(member for member, _ in g.members))]
    assert len(set(slots)) == len(slots)


def test_a_chain_of_images_is_not_one_group(tmp_path: Path) -> None:
    """Each vector is near the next one, but the ends are unlike."""
    angles = np.arange(25) * np.arccos(0.98)
    vectors = np.zeros((25, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    new_table(tmp_path / "t.lance", vectors)
    index = Index(tmp_path / "t.lance", probe_texts=lambda _: vectors[:1])
    groups = duplicate_groups(index.engine, 0.97)
    assert max(len(group.members) for group in groups) == 2
    for group in groups:
        for member, _ in group.members:
            assert float(vectors[member] @ vectors[group.representative]) >= 0.969


def test_large_groups_of_equal_vectors_are_found_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((3, DIM)))
    vectors = np.repeat(base, 100, axis=0)[rng.permutation(300)]
    table = new_table(tmp_path / "t.lance")
    parts = rows(vectors)
    hashes = [f"{number:016x}" for number in range(300)]
    table.append(parts.set_column(parts.column_names.index("hash"), "hash", [hashes]))
    index = Index(tmp_path / "t.lance", probe_texts=lambda _: base)
    groups = duplicate_groups(index.engine, 0.99)
    assert [(group.exact, len(group.members)) for group in groups] == [(False, 99)] * 3
    # With the same content they are copies, whatever the threshold.
    open_table(table.uri).delete([f"{number:05d}" for number in range(300)])
    open_table(table.uri).append(rows(vectors, 300))
    index.refresh()
    assert [(group.exact, len(group.members)) for group in duplicate_groups(index.engine, 1.0)] == [(True, 99)] * 3


def test_what_is_written(run_index: Run, own_album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = sorted(own_album.glob("*.jpg"))[:3]
    for number in range(3):
        shutil.copy(first, own_album / f"copy-{number}.jpg")
    shutil.copy(second, own_album / "<b>.jpg")
    shutil.copy(third, own_album / "line\nbreak.jpg")
    index = run_index()
    open_table(index.uri).delete(["copy-0.jpg"])
    index.refresh()
    (own_album / "copy-1.jpg").unlink()
    monkeypatch.setattr(models, "load", None)
    found = duplicates(index.uri, tmp_path / "out", threshold=1.0, shown=1)
    assert os.fspath(found) == str(tmp_path / "out")
    assert (len(found), found.images) == (3, 40)
    content = json.loads(found.json.read_text())
    assert content["images"] == 40
    assert [group["exact"] for group in content["groups"]] == [True] * 3
    groups = {frozenset(image["id"] for image in group["images"]) for group in content["groups"]}
    assert groups == {
        frozenset((first.name, "copy-1.jpg", "copy-2.jpg")), frozenset((second.name, "<b>.jpg")),
        frozenset((third.name, "line\nbreak.jpg")),
    }  # fmt: skip
    assert {image["cosine"] for group in content["groups"] for image in group["images"]} == {1.0}
    keep, delete = (path.read_text().splitlines() for path in (found.keep, found.delete))
    assert not {*keep} & {*delete}
    every = {hit.path for group in found.groups for hit in (group.keep, *group.others)}
    assert {*keep, *delete} == {path for path in every if "\n" not in path}
    assert [group.keep.path for group in found.groups if "\n" not in group.keep.path] == keep
    html = found.page.read_text()
    assert "3 groups of near-duplicates" in html
    assert "http" not in html.replace("http-equiv", "")
    page = duplicates(index, tmp_path / "out", threshold=1.0).page.read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    assert page.count(" cannot be read") == 1
    assert "&lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page
    file = io.StringIO()
    Console(file=file, width=150).print(found)
    assert "4 exact copies and 0 near-duplicates could be deleted" in " ".join(file.getvalue().split())
    assert "line\\nbreak.jpg" in file.getvalue()


def test_exact_copies_come_first_and_the_largest_image_is_kept(run_index: Run, own_album: Path, tmp_path: Path) -> None:
    from PIL import Image

    first = sorted(own_album.glob("*.jpg"))[0]
    with Image.open(first) as image:
        image.resize((512, 512), Image.Resampling.NEAREST).save(own_album / "large.png")
    shutil.copy(first, own_album / "copy.jpg")
    index = run_index()
    found = duplicates(index, tmp_path / "out", threshold=0.9)
    copies = found.groups[0]
    assert (copies.exact, {copies.keep.id, copies.others[0].id}) == (True, {first.name, "copy.jpg"})
    assert not any(group.exact for group in found.groups[1:])
    least = [group.others[-1].score for group in found.groups[1:]]
    assert least == sorted(least, reverse=True)
    (large,) = (group for group in found.groups if group.keep.id == "large.png")
    assert copies.keep.id in [hit.id for hit in large.others]
    keep, delete = (path.read_text().splitlines() for path in (found.keep, found.delete))
    assert str(own_album / "large.png") in keep
    assert {str(first), str(own_album / "copy.jpg")} <= {*delete}
    assert not {*keep} & {*delete}


def test_a_file_that_is_kept_is_never_to_be_deleted(own_album: Path, base: Path, tmp_path: Path) -> None:
    """The same file in two rows of a table is a copy that nobody can delete."""
    import mcip

    first, second = sorted(own_album.glob("*.jpg"))[:2]
    listed = "\n".join(f"{id},{path}" for id, path in (("a", first), ("b", first), ("c", second)))
    (tmp_path / "table.csv").write_text(f"id,image\n{listed}\n")
    mcip.index(str(tmp_path / "table.csv"), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    found = duplicates(tmp_path / "t.lance", tmp_path / "out", threshold=1.0)
    assert len(found) == 1
    assert found.delete.read_text() == ""
    assert found.keep.read_text().splitlines() == [found.groups[0].keep.path]


def test_what_is_refused(index: Index, tmp_path: Path) -> None:
    for threshold in (1.5, -1.0):
        with pytest.raises(ConfigError, match="threshold is"):
            duplicates(index, tmp_path / "out", threshold=threshold)
    with pytest.raises(ArtefactError, match="is no index"):
        duplicates(str(tmp_path / "none"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
