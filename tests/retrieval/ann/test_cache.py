"""Derived files: kept up to date, checked, rebuilt when they are damaged, and put where they can be written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mcip.core.errors import ArtefactError
from mcip.retrieval.ann import cache, checksums
from mcip.retrieval.ann.cache import BACKGROUND, PROBES, STATE, derived_folder, folder_beside, read_state
from mcip.retrieval.index import Index
from mcip.retrieval.table import IndexTable, open_table

from .cloud import DIM, cloud, new_table, probes, rows

QUERIES = cloud(5, 3)


def answers(index: Index) -> list[list[tuple[str, float]]]:
    found = index.search_vectors(QUERIES, "image", 10, exact=True)
    return [[(hit.id, hit.score) for hit in results] for results in found]


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_changes_of_the_table_reach_the_derived_files(ann: str, table: IndexTable) -> None:
    index = Index(table.uri, ann=ann, probe_texts=probes)  # type: ignore[arg-type]
    generation = index.engine.state.generation
    new = cloud(40, 7)
    table = open_table(table.uri).append(rows(new, 600, "b"))
    table = table.upsert(rows(new[:5] * np.float32(-1), 0))
    table = table.delete([f"{number:05d}" for number in range(5, 25)])
    index.refresh()
    state = index.engine.state
    assert (state.generation, state.slots, len(index)) == (generation, 645, 620)
    for opened in (index, Index(table.uri)):
        assert opened.engine.state.requested == ann
        results = opened.search_vectors(np.concatenate([new[:1], -new[:1]]), "image", 620, exact=True)
        assert [hits[0].id for hits in results] == ["00600", "00000"]
        assert len({hit.id for hit in results[0]}) == 620
        assert {hit.id for hit in opened.search_vectors(new[:1], "image", 50)[0]}.isdisjoint(
            f"{number:05d}" for number in range(5, 25)
        )
    # With more than a fifth of the slots dead, a new generation is built.
    open_table(table.uri).delete([f"{number:05d}" for number in range(25, 225)])
    index.refresh()
    state = index.engine.state
    assert (state.generation, state.slots) == (generation + 1, 420)
    assert (index.folder / state.vectors).stat().st_size == 420 * DIM * 2
    names = {path.name for path in index.folder.iterdir() if path.name != cache.LOCK}
    assert names == {STATE, *state.files}


def flip(path: Path, at: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit at the start": lambda path: flip(path, 3),
    "one bit in the middle": lambda path: flip(path, path.stat().st_size // 2),
    "one bit at the end": lambda path: flip(path, -2),
    "another file": lambda path: path.write_bytes(b"[]" * (path.stat().st_size // 2 + 1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_damaged_files_are_built_again(ann: str, damage: str, table: IndexTable) -> None:
    index = Index(table.uri, ann=ann, probe_texts=probes)  # type: ignore[arg-type]
    expected, names = answers(index), [STATE, *index.engine.state.files]
    assert len(names) == (7 if ann == "graph" else 6)
    for name in names:
        path = next(path for path in index.folder.iterdir() if path.suffixes == Path(name).suffixes and (
            path.name[0].isdecimal() == name[0].isdecimal() and (path.name[0].isdecimal() or path.name == name)
        ))  # fmt: skip
        DAMAGES[damage](path)
        again = Index(table.uri, ann=ann, probe_texts=probes)  # type: ignore[arg-type]
        assert answers(again) == expected
        assert len(again) == 600
        state = again.engine.state
        assert all(checksum.fits(again.folder / name, True) for name, checksum in state.files.items())
        assert (again.engine.graph is not None and len(again.engine.graph) == 600) == (ann == "graph")
        # What was built holds: opened once more, nothing changes.
        before = (again.folder / STATE).read_bytes()
        assert answers(Index(table.uri)) == expected
        assert (again.folder / STATE).read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "3", '{"files": 3}', "\x00\xff"])
def test_a_state_that_says_nothing_is_built_again(content: str, table: IndexTable) -> None:
    index = Index(table.uri, probe_texts=probes)
    expected = answers(index)
    (index.folder / STATE).write_text(content, encoding="latin-1")
    assert answers(Index(table.uri, probe_texts=probes)) == expected


def test_a_changed_number_in_the_state_is_noticed(table: IndexTable) -> None:
    index = Index(table.uri, ann="graph", probe_texts=probes)
    path = index.folder / STATE
    content = json.loads(path.read_text())
    content["settings"]["image"]["width"] = 1
    path.write_text(json.dumps(content))
    assert read_state(index.folder, table.latest()) is None


def test_only_what_is_damaged_is_built_again(table: IndexTable) -> None:
    index = Index(table.uri, ann="graph", probe_texts=probes)
    generation = index.engine.state.generation
    for name in (BACKGROUND, PROBES, index.engine.state.graph):
        flip(index.folder / name, 100)
        assert Index(table.uri, probe_texts=probes).engine.state.generation == generation
    flip(index.folder / index.engine.state.vectors, 100)
    assert Index(table.uri, probe_texts=probes).engine.state.generation == generation + 1


def test_large_files_are_checked_byte_by_byte_on_request(table: IndexTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "ALWAYS_CHECKED", 1000)
    index = Index(table.uri, probe_texts=probes)
    expected, path = answers(index), index.folder / index.engine.state.vectors
    path.write_bytes(bytes(path.stat().st_size))
    assert answers(Index(table.uri)) != expected
    assert answers(Index(table.uri, probe_texts=probes, verify=True)) == expected
    # Their sizes are compared always.
    path = index.folder / Index(table.uri).engine.state.vectors
    path.write_bytes(path.read_bytes()[:-1])
    assert answers(Index(table.uri, probe_texts=probes)) == expected


def test_files_of_another_table_at_the_same_place_are_not_used(table: IndexTable, tmp_path: Path) -> None:
    first = Index(table.uri, probe_texts=probes)
    Path(table.uri).rename(tmp_path / "old.lance")
    second = new_table(tmp_path / "t.lance", cloud(600, 8))
    assert second.version == first.engine.table.version
    assert read_state(first.folder, second) is None
    assert first.refresh()
    assert not first.refresh()
    for index in (first, Index(table.uri, probe_texts=probes)):
        results = index.search_vectors(cloud(600, 8)[:1], "image", 1)
        assert results[0][0].id == "00000"
        assert results[0][0].score == pytest.approx(1, abs=1e-3)


def test_rows_that_the_files_lack_are_noticed_whatever_the_version_says(table: IndexTable, tmp_path: Path) -> None:
    """A copy of a table that went another way has the same identity and the same number."""
    shutil.copytree(table.uri, tmp_path / "copy")
    table.append(rows(cloud(5, 30), 600))
    Index(table.uri, probe_texts=probes)
    shutil.rmtree(table.uri)
    shutil.copytree(tmp_path / "copy", table.uri)
    new = cloud(7, 31)
    open_table(table.uri).append(rows(new, 700))
    assert Index(table.uri, probe_texts=probes).search_vectors(new[:1], "image", 1)[0][0].id == "00700"


def deny_writing(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Make a folder a place that can only be read, also for root."""
    real = os.access

    def access(path: str | Path, mode: int, **options: bool) -> bool:
        denied = mode & os.W_OK and Path(path).is_relative_to(place)
        return real(path, mode, **options) and not denied

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "supports_effective_ids", {access})


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_an_index_in_a_read_only_place(
    ann: str, tmp_path: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = new_table(tmp_path / "mount" / "t.lance", cloud(600))
    deny_writing(monkeypatch, tmp_path / "mount")
    for _ in range(2):
        index = Index(table.uri, ann=ann, probe_texts=probes)  # type: ignore[arg-type]
        assert index.folder.is_relative_to(user_cache)
        assert [results[0].id for results in index.search_vectors(cloud(600)[:2], "image", 1)] == ["00000", "00001"]
    assert [path.name for path in (tmp_path / "mount").iterdir()] == ["t.lance"]


def test_files_beside_a_read_only_table_are_used_while_they_are_up_to_date(
    tmp_path: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = new_table(tmp_path / "mount" / "t.lance", cloud(600))
    beside = folder_beside(table.uri)
    assert beside is not None
    assert Index(table.uri, ann="graph", probe_texts=probes).folder == beside == derived_folder(table.uri)
    with monkeypatch.context() as patch:
        deny_writing(patch, tmp_path / "mount")
        before = sorted((path.name, path.stat().st_mtime_ns) for path in beside.iterdir())
        index = Index(table.uri)
        assert index.folder == beside
        expected = answers(index)
        assert sorted((path.name, path.stat().st_mtime_ns) for path in beside.iterdir()) == before
        assert not user_cache.exists()
        flip(beside / index.engine.state.vectors, 50)
        again = Index(table.uri, probe_texts=probes)
        assert again.folder.is_relative_to(user_cache)
        assert answers(again) == expected
    table.append(rows(cloud(5, 8), 600))
    with monkeypatch.context() as patch:
        deny_writing(patch, tmp_path / "mount")
        assert again.refresh()
        assert len(again) == 605


def test_a_cache_that_cannot_be_written_to_is_reported(
    table: IndexTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    deny_writing(monkeypatch, tmp_path)
    with pytest.raises(ArtefactError, match=r"cannot be written to .*set XDG_CACHE_HOME"):
        Index(table.uri, probe_texts=probes)


def test_a_link_to_a_table_shares_its_derived_files(tmp_path: Path, user_cache: Path) -> None:
    table = new_table(tmp_path / "disk" / "t.lance", cloud(60))
    for link, target in (("link.lance", table.uri), ("folder", str(tmp_path / "disk"))):
        (tmp_path / link).symlink_to(target)
    for uri in (str(tmp_path / "link.lance"), str(tmp_path / "folder" / "t.lance"), f"file://{table.uri}"):
        assert folder_beside(uri) == folder_beside(table.uri) == derived_folder(uri)
    assert not user_cache.exists()
