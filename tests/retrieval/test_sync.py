"""Keeping a table: doubles repaired, thumbnails added, old versions removed, a new table told from the old one."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mcip.core.errors import ConfigError, DataError
from mcip.retrieval.index import Index
from mcip.retrieval.table import open_table
from mcip.stages import index_update
from mcip.stages.index import index as build_index

Run = Callable[..., Index]


def rows_of(db: Path, *left_out: str) -> list[dict[str, Any]]:
    table = open_table(str(db))
    names = [name for name in table.schema.names if name not in left_out]
    rows: list[dict[str, Any]] = table.read(names).drop_columns(["_rowid"]).sort_by("id").to_pylist()
    return rows


def test_doubles_are_repaired(run_index: Run, tmp_path: Path, embedded: list[int]) -> None:
    db = tmp_path / "photos.lance"
    run_index()
    before = rows_of(db)
    table = open_table(str(db))
    doubled = table.read(table.schema.names, "folder <> '.'").drop_columns(["_rowid"])
    stale = doubled.set_column(doubled.schema.get_field_index("stamp"), "stamp", [["old"] * doubled.num_rows])
    table.append(stale).append(doubled.slice(0, 5))
    embedded.clear()
    assert len(run_index()) == 36
    assert rows_of(db) == before
    assert embedded == []


def test_rows_are_inserted_by_merge(run_index: Run, tmp_path: Path) -> None:
    run_index()
    table = open_table(str(tmp_path / "photos.lance"))
    rows = table.read(table.schema.names).drop_columns(["_rowid"])
    assert len(table.upsert(rows)) == 36


def test_an_index_is_updated_by_the_decoding_it_was_made_with(run_index: Run, tmp_path: Path) -> None:
    for given, made in ((None, "fast"), ("exact", "exact")):
        run_index(decode=given)
        run_index()
        assert open_table(str(tmp_path / "photos.lance")).identity.decode == made
        other = "exact" if made == "fast" else "fast"
        with pytest.raises(ConfigError, match=f"was made with --decode {made}, not {other}"):
            run_index(decode=other)
        shutil.rmtree(tmp_path / "photos.lance")


def test_thumbnails_are_added_later(run_index: Run, own_album: Path, tmp_path: Path, embedded: list[int]) -> None:
    db = tmp_path / "photos.lance"
    run_index()
    before = rows_of(db)
    embedded.clear()
    index = run_index(thumbnails=16)
    assert embedded == []
    assert rows_of(db, "thumbnail") == before
    for row in rows_of(db):
        with Image.open(io.BytesIO(row["thumbnail"])) as small:
            assert max(small.size) == 16
    assert index.thumbnail(before[0]["id"]) is not None
    version = open_table(str(db)).version
    with pytest.raises(ConfigError, match="--thumbnails 16, not"):
        run_index(thumbnails=32)
    run_index()
    assert open_table(str(db)).version == version


def test_adding_thumbnails_resumes(
    run_index: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[int]
) -> None:
    from mcip.retrieval.table import IndexTable

    run_index()
    upsert, calls = IndexTable.upsert, []

    def stop(self: IndexTable, rows: Any) -> IndexTable:
        calls.append(rows.num_rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return upsert(self, rows)

    monkeypatch.setattr(IndexTable, "upsert", stop)
    with pytest.raises(KeyboardInterrupt):
        run_index(thumbnails=16)
    embedded.clear()
    run_index()
    assert calls == [10, 10, 10, 10, 6]
    assert embedded == []
    assert all(row["thumbnail"] for row in rows_of(tmp_path / "photos.lance"))


def test_old_versions_are_removed_and_fragments_joined(run_index: Run, own_album: Path, tmp_path: Path) -> None:
    image = min(own_album.rglob("*.jpg")).read_bytes()
    for number in range(45):
        (own_album / f"n{number}.jpg").write_bytes(image + bytes([number]))
        if number % 9 == 0:
            run_index(shard_rows=1)
    dataset = open_table(str(tmp_path / "photos.lance")).dataset
    kept = len(dataset.versions())
    assert kept > 36
    assert len(dataset.get_fragments()) < 40
    index = run_index(keep_hours=0)
    dataset = open_table(str(tmp_path / "photos.lance")).dataset
    assert len(dataset.versions()) == 1
    assert len(list((tmp_path / "photos.lance" / "data").iterdir())) == len(dataset.get_fragments())
    assert len(index.search(text="a toy", k=99)) == len(index) == 36 + 45


def test_a_new_table_at_the_same_place_with_the_same_version(run_index: Run, own_album: Path, tmp_path: Path) -> None:
    db = tmp_path / "photos.lance"
    reader = run_index()
    old = open_table(str(db))
    shutil.rmtree(db)
    removed = min(own_album.rglob("*.jpg"))
    removed.rename(tmp_path / "elsewhere.jpg")
    run_index()
    new = open_table(str(db))
    assert new.version == old.version
    assert new.version_key != old.version_key
    assert new.version_key == open_table(str(db)).version_key
    assert reader.refresh()
    assert len(reader) == 35


def test_a_table_that_was_put_back_and_went_on_is_another_version(run_index: Run, tmp_path: Path) -> None:
    db = tmp_path / "photos.lance"
    run_index()
    shutil.copytree(db, tmp_path / "backup")
    first = open_table(str(db)).change_identity(transform="model")
    shutil.rmtree(db)
    shutil.copytree(tmp_path / "backup", db)
    second = open_table(str(db)).change_identity(transform="model")
    assert (first.version, first.identity.created) == (second.version, second.identity.created)
    assert first.version_key != second.version_key


def test_nothing_readable_makes_no_index(own_album: Path, base: Path, tmp_path: Path) -> None:
    for path in own_album.rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"None of the 36 images of .* can be read:\n  .*: not an image"):
        build_index(str(own_album), str(tmp_path / "t.lance"), model=str(base), device="cpu")


def test_what_is_returned(own_album: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    (own_album / "x.doc").write_bytes(b"x")
    (own_album / "[bold]broken.jpg").write_bytes(b"x")
    db = tmp_path / "t.lance"
    indexed = build_index([str(own_album)], str(db), model=str(base), device="cpu")
    assert Path(indexed) == db
    assert str(indexed) == str(db)
    assert indexed.changes is not None
    assert (indexed.changes.embedded, len(indexed.changes.unreadable), len(indexed.changes.skipped)) == (36, 1, 2)
    assert len(indexed.index) == 36
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "36 images embedded" in printed.err
    assert "1 .doc" in printed.err
    assert "1 images could not be read" in printed.err
    assert "2 other files were left out: " in printed.err
    Console().print(indexed)
    shown = capsys.readouterr().out
    assert "36 x 16 dimensions" in shown
    assert "exact search" in shown
    again = build_index(db=indexed.index, check=True, device="cpu")
    assert again.changes is None


def test_the_toy_model_warns(own_album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(index_update, "note", notes.append)
    for path in sorted(own_album.rglob("*.jpg"))[3:]:
        path.unlink()
    build_index(str(own_album), str(tmp_path / "t.lance"), model="toyshop", device="cpu")
    assert any("The model `toyshop` knows drawn toys only" in note for note in notes)
