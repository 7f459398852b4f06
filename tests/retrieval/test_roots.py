"""What an index is the index of: told by where it is, added to, moved, and replaced only with consent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mcip.core.errors import ConfigError, DataError
from mcip.retrieval.identity import Root
from mcip.retrieval.index import Index
from mcip.retrieval.listing import list_images
from mcip.retrieval.location import resolve, table_location
from mcip.retrieval.roots import moved_roots
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index

Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Run:
    """Index, and read the rows by their ids."""

    def index(*data: str, **parameters: Any) -> dict[str, dict[str, Any]]:
        db = str(tmp_path / "t.lance")
        build_index(list(data) or None, db, **{"model": str(base), "device": "cpu", **parameters})
        table = open_table(db)
        rows = table.read(table.schema.names).drop_columns(["_rowid"]).to_pylist()
        return {row["id"]: row for row in rows}

    return index


@pytest.fixture
def small(album: Path, tmp_path: Path) -> Path:
    """A folder of five images, one of them in a folder."""
    root = tmp_path / "small"
    (root / "inner").mkdir(parents=True)
    for number, path in enumerate(sorted(album.rglob("*.jpg"))[:5]):
        shutil.copy(path, root / ("inner" if number == 4 else ".") / path.name)
    return root


def test_one_place_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "[2019] b"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "a")
    expected = os.path.realpath(folder)
    spellings = ("[2019] b", "./[2019] b/", "../a/[2019] b", "~/a/[2019] b", "../link", str(folder) + "//", folder)
    assert {resolve(spelling) for spelling in (*spellings, folder.as_uri())} == {expected}
    assert resolve("../link/*.parquet") == resolve("~/a/[2019] b/*.parquet") == f"{expected}/*.parquet"
    assert resolve("S3://bucket/a/") == resolve("s3://bucket/a") == "s3://bucket/a"
    assert resolve("owner/name") == "owner/name"
    (tmp_path / "a" / "owner").mkdir()
    assert resolve("owner/name") == os.path.realpath("owner/name")
    # A folder that is called ~, and the home of a user who is not there, are folders like others.
    assert resolve("./~/photos") == os.path.realpath("./~/photos")
    assert resolve("~nobody-here/photos") == os.path.realpath("./~nobody-here/photos")
    with pytest.raises(DataError, match="names the machine 'elsewhere'"):
        resolve("file://elsewhere/photos")
    expected = os.path.realpath("new/t.lance")
    assert table_location("new/t.lance") == table_location(Path("link/../new/t.lance/")) == expected
    for function in (list_images, table_location):
        with pytest.raises(DataError, match=r"b'.*caf\\xe9' is not UTF-8"):
            function(os.fsdecode(b"caf\xe9"))


def test_the_same_folder_by_another_spelling(
    run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(str(small))
    (tmp_path / "link").symlink_to(small)
    monkeypatch.chdir(tmp_path)
    version = open_table(str(tmp_path / "t.lance")).version
    for spelling in ("small", "./link", "link/../small", small.as_uri()):
        assert run(spelling) == rows
    assert open_table(str(tmp_path / "t.lance")).version == version


def test_another_source_is_refused_whatever_the_first_was(
    run: Run, small: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        pq.write_table(pq.read_table(train).slice(4 * number, 4), shards / f"{number}.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = run("~/shards/*.parquet")
    assert len(rows) == 8
    for other in (str(small), str(shards), str(train)):
        with pytest.raises(ConfigError, match=r"is the index of .*shards/\*.parquet. Indexing only"):
            run(other)
    assert run() == rows
    assert run(str(small), replace=True).keys() == {path.relative_to(small).as_posix() for path in small.rglob("*.jpg")}


def test_a_folder_that_became_a_table_is_refused(run: Run, small: Path, train: Path) -> None:
    run(str(small))
    for path in small.rglob("*.jpg"):
        path.unlink()
    pq.write_table(pq.read_table(train).slice(0, 4), small / "t.parquet")
    with pytest.raises(ConfigError, match="was indexed as images, but is parquet now"):
        run()


def test_several_folders(run: Run, small: Path, album: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "small"
    shutil.copytree(album / "a" / "b", other)
    first = run(str(small))
    both = run(str(small), str(other))
    added = {f"small/{path.name}": str(path) for path in other.glob("*.jpg")}
    assert both.keys() == first.keys() | added.keys()
    assert {name: both[name] for name in first} == first
    assert {name: both[name]["path"] for name in added} == added
    assert both[min(added)]["folder"] == "small"
    assert run() == both
    index = Index(tmp_path / "t.lance", device="cpu")
    hits = index.search(image=min(added.values()), where="folder = 'small'", k=1)
    assert [hit.id for hit in hits] == [min(added)]
    with pytest.raises(ConfigError, match=r"would delete .*elsewhere/small from it"):
        run(str(small))
    with pytest.raises(ConfigError, match=r"inner is inside .*small"):
        run(str(small), str(other), str(small / "inner"))
    assert run(str(small), replace=True) == first


def test_several_at_once_and_tables_among_them(run: Run, small: Path, train: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(train).slice(0, 3), tmp_path / "t.parquet")
    rows = run(str(tmp_path / "t.parquet"), str(small))
    assert sum(name.startswith("t.parquet/") for name in rows) == 3
    assert sum(name.startswith("small/") for name in rows) == 5
    assert rows["small/inner/" + next((small / "inner").iterdir()).name]["folder"] == "small/inner"
    assert rows["t.parquet/train-00000-0"]["label"] == "train-00000"
    index = Index(tmp_path / "t.lance", device="cpu")
    assert index.image_file("t.parquet/train-00000-2")[0] == pq.read_table(train)["image"][2]["bytes"].as_py()


def test_moved_libraries(run: Run, small: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shutil.copytree(album / "a" / "b", tmp_path / "disk" / "other")
    before = run(str(small), str(other))
    (tmp_path / "new=disk").mkdir()
    moved = [small.rename(tmp_path / "moved"), (tmp_path / "disk").rename(tmp_path / "new=disk" / "disk")]
    with pytest.raises(DataError, match=r"no file or folder .*small.*say --moved-to NEW"):
        run()
    with pytest.raises(ConfigError, match="say which source has moved, as OLD=NEW"):
        run(moved_to=[str(moved[0])])
    read = []
    monkeypatch.setattr("mcip.retrieval.reading.read_file", lambda path: read.append(path))
    after = run(moved_to=[f"{small}={moved[0]}", f"{tmp_path / 'disk'}={moved[1]}"])
    assert read == []
    assert after.keys() == before.keys()
    assert {Path(row["path"]).exists() for row in after.values()} == {True}
    assert [{**row, "path": ""} for row in after.values()] == [{**before[name], "path": ""} for name in after]
    assert run() == after


def test_moving_to_a_folder_of_other_images_is_refused(run: Run, small: Path, album: Path, tmp_path: Path) -> None:
    before = run(str(small))
    others = tmp_path / "others"
    others.mkdir()
    for path in album.glob("*.jpg"):
        shutil.copy(path, others)
    with pytest.raises(DataError, match="5 of the 5 images of the index are missing"):
        run(moved_to=[str(others)])
    assert {name: row for name, row in run().items() if name in before} == before


def test_only_what_is_below_the_old_place_moves() -> None:
    roots = [Root("images", "/a/b"), Root("images", "/a/bc", "bc/"), Root("objects", "s3://x/a", "a/")]
    moved = moved_roots(roots, ["/a/b=/n", "s3://x=s3://y"])
    assert [root.location for root in moved] == ["/n", "/a/bc", "s3://y/a"]
    assert [root.prefix for root in moved] == ["", "bc/", "a/"]


def test_objects_in_memory(run: Run, train: Path, base: Path, tmp_path: Path) -> None:
    from mcip.data import read_table

    table, db = read_table(train), tmp_path / "t.lance"
    build_index(table, str(db), model=str(base), device="cpu")
    build_index(table.rows.to_pandas(), str(tmp_path / "p.lance"), model=str(base), device="cpu")
    for found in (Index(db, device="cpu"), Index(tmp_path / "p.lance", device="cpu")):
        assert len(found) == 32
        assert found.row("train-00000-0")["label"] == "train-00000"
    with pytest.raises(ConfigError, match="object in memory: give that object again"):
        run()
    with pytest.raises(DataError, match="indexed from an object in memory"):
        Index(db, device="cpu").image_file("train-00000-0")
