"""Shards of one table need not have the same columns; remote ones are read into the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.core.errors import DataError
from mcip.core.hashes import cache_root
from mcip.data import read_captions, read_table
from mcip.data.remote import _version, remote_files
from tests.images import file_bytes, noise_image

from .conftest import embedded, write_parquet
from .test_pools_and_tars import texts


def shards(folder: Path, *columns: dict[str, Any]) -> Path:
    for number, rows in enumerate(columns):
        write_parquet(folder / f"train-{number}.parquet", {"image": embedded(1), **rows})
    return folder


@pytest.mark.parametrize(
    "rows",
    [
        ({"label": ["a"]}, {"label": [None]}),
        ({"label": pa.array([None])}, {"label": ["a"]}, {"label": pa.array([None], pa.string())}),
        ({"label": ["a"]}, {"label": ["b"], "extra": [1]}, {}),
        ({"extra": [0.5]}, {"label": pa.array(["a"], pa.large_string())}),
        ({"label": pa.array(["a"]).dictionary_encode()}, {"label": ["b"]}),
        ({"label": pa.array([1], pa.int32())}, {"label": pa.array([2**40])}),
    ],
)
def test_shards_with_other_columns(tmp_path: Path, rows: tuple[dict[str, Any], ...]) -> None:
    table = read_table(shards(tmp_path, *rows))
    expected = [(list(pa.array(row["label"]).to_pylist()) if "label" in row else [None])[0] for row in rows]
    assert table.labels == [None if label is None else str(label) for label in expected]


def test_columns_that_do_not_go_together_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-1\.parquet: the column 'label' holds int64.*before it holds string"):
        read_table(shards(tmp_path, {"label": ["a"]}, {"label": [1]}))
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.table([pa.array(["a"])] * 2, ["image", "image"]), path)
    with pytest.raises(DataError, match="has the column 'image' more than once"):
        read_table(path)


def test_classes_of_shards_must_be_the_same(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = datasets.Dataset.from_dict({"image": embedded(1), "label": [0]}, features=features)
        rows.to_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(DataError, match="the classes of the column 'label' are not those of the other files"):
        read_table(tmp_path)


@pytest.mark.parametrize("captions", [pa.array([[]], pa.list_(pa.null())), pa.array([None]), pa.array([[None]])])
def test_no_captions(tmp_path: Path, captions: pa.Array) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(1), "captions": captions})
    assert read_table(path).captions == [[]]
    with pytest.raises(DataError, match="the pool is empty"):
        read_captions(path)


def test_empty_caption_lists_beside_others(tmp_path: Path) -> None:
    folder = shards(tmp_path, {"captions": pa.array([[]], pa.list_(pa.null()))}, {"captions": [["a", "b"]]})
    assert read_table(folder).captions == [[], ["a", "b"]]
    assert texts(folder) == ["a", "b"]


def test_captions_that_are_structs_are_refused(tmp_path: Path) -> None:
    for captions in ([{"en": "a"}], [[{"raw": "a"}]]):
        with pytest.raises(DataError, match="'captions' holds"):
            read_table(write_parquet(tmp_path / "t.parquet", {"image": embedded(1), "captions": captions}))


def test_columns_of_types_that_are_not_read(tmp_path: Path) -> None:
    """They matter only where the table needs them."""
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(1), "counts": maps, "label": ["x"]})
    assert read_table(path).labels == ["x"]
    with pytest.raises(DataError, match=r"the column 'label' holds map<.*>, which cannot be read"):
        read_table(write_parquet(path, {"image": embedded(1), "label": maps}))


def test_many_row_groups_keep_their_order(tmp_path: Path) -> None:
    images = [file_bytes(noise_image(seed)) for seed in range(7)]
    pq.write_table(pa.table({"image": images, "id": list("abcdefg")}), tmp_path / "t.parquet", row_group_size=2)
    table = read_table(tmp_path / "t.parquet")
    assert table.ids == list("abcdefg")
    assert [table.image(row).tobytes() for row in range(7)] == [noise_image(seed).tobytes() for seed in range(7)]


def test_earlier_caches_of_a_file_are_removed(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(1)})
    before = read_table(path)
    (first,) = cache_root().glob("*/*/rows.arrow")
    write_parquet(path, {"image": embedded(2)})
    read_table(path)
    assert first.exists()  # perhaps another process has it open
    assert len(before.image(0).tobytes())
    os.utime(first.parent, (0, 0))
    write_parquet(path, {"image": embedded(3)})
    assert len(read_table(path)) == 3
    assert not first.exists()


def test_flipped_bits_are_noticed_where_pages_have_checksums(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    content = file_bytes(noise_image())
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"image": [content]}), path, write_page_checksum=True, **options)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(content) + 60] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"cannot read .*t\.parquet"):
        read_table(path)


# Remote files


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def put(memory: Any, tmp_path: Path, name: str, columns: dict[str, Any]) -> None:
    memory.pipe(name, write_parquet(tmp_path / "put.parquet", columns).read_bytes())


def test_remote_tables(memory: Any, tmp_path: Path) -> None:
    put(memory, tmp_path, "/bucket/train-0.parquet", {"image": embedded(2), "label": ["a", "b"]})
    put(memory, tmp_path, "/bucket/test-0.parquet", {"image": embedded(1), "caption": ["x"]})
    memory.pipe("/bucket/readme.md", b"x")
    table = read_table("memory://bucket")
    assert (table.labels, table.splits) == ([None, "a", "b"], ["test", "train", "train"])
    assert table.skipped == {".md": 1}
    assert table.image(2).tobytes() == noise_image(1).tobytes()
    assert table.rows.cache_files  # memory-mapped from the cache, not held in memory
    assert read_table("memory://bucket/train-0.parquet").labels == ["a", "b"]
    assert texts("memory://bucket/test-0.parquet") == ["x"]


def test_remote_tables_that_change_are_read_again(memory: Any, tmp_path: Path) -> None:
    uri = "memory://bucket/t.parquet"
    put(memory, tmp_path, "/bucket/t.parquet", {"image": embedded(1), "label": ["a"]})
    before = read_table(uri)
    assert read_table(uri).fingerprint == before.fingerprint
    put(memory, tmp_path, "/bucket/t.parquet", {"image": embedded(1), "label": ["b"]})
    assert (before.labels, read_table(uri).labels) == (["a"], ["b"])


def test_versions_of_remote_files(memory: Any) -> None:
    """ETags are trusted, times once they are old, and else the contents."""
    memory.pipe("/a", b"one")
    old, now = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
    assert _version(memory, "/a", {"ETag": "x", "mtime": now, "size": 3}) == "ETag x 3"
    assert _version(memory, "/a", {"mtime": old, "size": 3}) == f"mtime {old} 3"
    for facts in ({"mtime": now, "size": 3}, {"size": 3}):
        first = _version(memory, "/a", facts)
        memory.pipe("/a", b"two")
        assert _version(memory, "/a", facts) != first
        memory.pipe("/a", b"one")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("memory://nothing/here.parquet", "there is no memory://nothing/here.parquet"),
        ("nosuch://x/y.parquet", "cannot be opened"),
        ("memory://only", r"one or more parquet files; there are 1 \.md"),
        ("memory://bad/t.parquet", "cannot read memory://bad/t.parquet"),
    ],
)
def test_wrong_remote_tables(memory: Any, uri: str, message: str) -> None:
    memory.pipe("/only/readme.md", b"x")
    memory.pipe("/bad/t.parquet", b"x" * 100)
    with pytest.raises(DataError, match=message):
        read_table(uri)


def test_endpoints_stay_in_the_names_of_remote_files(memory: Any) -> None:
    memory.pipe("/b/x.bin", b"x")
    assert [file.uri for file in remote_files("memory://b")] == ["memory://b/x.bin"]
