"""Reading an indexed image again: from what its file is now, one row group at a time where it is far away."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.core.errors import UnreadableImage
from mcip.retrieval.index import Index
from mcip.retrieval.listing import list_images, read_image
from mcip.retrieval.reading import _RemoteTable
from mcip.stages.index import index as build_index


def content_of(table: pa.Table, row: int) -> bytes:
    content: bytes = table["image"][row]["bytes"].as_py()
    return content


def test_a_rewritten_table_is_read_anew(train: Path, tmp_path: Path) -> None:
    table, path = pq.read_table(train), tmp_path / "t.parquet"
    pq.write_table(table, path)
    assert read_image(f"{path}#0") == content_of(table, 0)
    stamp = path.stat().st_mtime_ns
    pq.write_table(table.take([5, 1, 2, 3, 4, 0, *range(6, 32)]), path)
    os.utime(path, ns=(stamp, stamp))
    assert read_image(f"{path}#0") == content_of(table, 5)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"row 0 of .* is gone"):
        read_image(f"{path}#0")


def test_another_shard_of_a_folder(train: Path, tmp_path: Path) -> None:
    table, folder = pq.read_table(train), tmp_path / "shards"
    (folder / "b").mkdir(parents=True)
    pq.write_table(table.slice(0, 4), folder / "b" / "1.parquet")
    assert read_image(f"{folder}#0") == content_of(table, 0)
    pq.write_table(table.slice(8, 4), folder / "b" / "0.parquet")
    assert read_image(f"{folder}#0") == content_of(table, 8)
    (folder / "a").mkdir()
    pq.write_table(table.slice(16, 4), folder / "a" / "9.parquet")
    assert read_image(f"{folder}#0") == content_of(table, 16)


def test_images_of_an_open_index_after_the_table_was_rewritten(train: Path, base: Path, tmp_path: Path) -> None:
    table, path, db = pq.read_table(train), tmp_path / "t.parquet", str(tmp_path / "t.lance")
    pq.write_table(table, path)
    build_index(str(path), db, model=str(base), device="cpu")
    index = Index(db, device="cpu")
    before = {id: index.image_file(id) for id in table["id"].to_pylist()}
    pq.write_table(table.take(list(reversed(range(32)))), path)
    build_index(db=db, device="cpu")
    assert index.refresh()
    assert {id: index.image_file(id) for id in before} == before


def test_row_groups_of_a_table_that_is_far_away(train: Path, tmp_path: Path) -> None:
    table, path = pq.read_table(train), tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=5)
    far = _RemoteTable(path.as_uri())
    for row in (0, 4, 5, 31):
        assert far(row) == content_of(table, row)
        assert far.last is not None
        assert len(far.last[1]) <= 5
    with pytest.raises(UnreadableImage, match=r"row 32 of .* is gone"):
        far(32)
    assert far.is_current()
    pq.write_table(table.slice(0, 4), path)
    assert not far.is_current()


def test_equal_size_and_time_are_noticed(own_album: Path) -> None:
    before = list_images(str(own_album))
    path = Path(before.paths[0])
    facts, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    after = list_images(str(own_album))
    assert [a != b for a, b in zip(after.stamps, before.stamps, strict=True)] == [True, *[False] * 35]
