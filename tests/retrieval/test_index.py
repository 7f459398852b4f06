"""`mcip index`: what is in the table, what a second run does, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mcip import models
from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.data import decode, read_table
from mcip.embeddings.store import Embeddings
from mcip.retrieval.ann.cache import derived_folder
from mcip.retrieval.index import Index
from mcip.retrieval.table import create_table, open_table
from mcip.retrieval.vector_column import vectors_of
from mcip.stages.embed import embed
from mcip.stages.index import index as build_index
from mcip.stages.index_update import REPORT

Run = Callable[..., Index]


def rows_of(index: Index) -> dict[str, dict[str, Any]]:
    table = index.engine.table
    rows = table.read(table.schema.names).sort_by("id").drop_columns(["_rowid"]).to_pylist()
    return {row["id"]: row for row in rows}


def test_table_holds_what_the_images_are(album: Path, base: Path, index: Index) -> None:
    rows, model = rows_of(index), models.load(base)
    assert index.engine.table.identity.decode == "fast"
    transform = model.transform(decode="fast")
    files = {path.relative_to(album).as_posix(): path for path in album.rglob("*.jpg")}
    assert rows.keys() == files.keys()
    assert len(index) == len(files) == 36
    for name, path in files.items():
        row, image = rows[name], decode(path)
        assert row["path"] == str(path)
        assert (row["width"], row["height"]) == image.size
        assert row["hash"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["folder"] == str(Path(name).parent)
        pixels, _ = transform.read(path)
        expected = model.embed_pixels(transform.finish(pixels[None]))[0].numpy()
        np.testing.assert_allclose(row["vector"], expected, atol=1e-3)
        with Image.open(pa.BufferReader(row["thumbnail"])) as small:
            assert max(small.size) == 24


def test_half_precision_moves_no_cosine_by_more_than_rounding(train: Path, base: Path, tmp_path: Path) -> None:
    build_index(str(train), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    embed(str(train), tmp_path / "full", str(base), device="cpu")
    full = Embeddings(tmp_path / "full")
    rows = open_table(str(tmp_path / "t.lance")).read(["id", "vector"]).sort_by("id")
    stored = vectors_of(rows["vector"]).astype(np.float32)
    exact = full.array()[np.argsort(full.ids)]
    assert np.abs(stored @ stored.T - exact @ exact.T).max() < 1e-3


def test_a_second_run_embeds_nothing(run_index: Run, embedded: list[int]) -> None:
    before = rows_of(run_index())
    version = run_index().engine.table.version
    assert sum(embedded) == 36
    assert rows_of(run_index()) == before
    assert run_index().engine.table.version == version
    assert sum(embedded) == 36


def test_new_changed_moved_copied_and_removed(run_index: Run, own_album: Path, embedded: list[int]) -> None:
    before = rows_of(run_index())
    embedded.clear()
    names = sorted(before)
    new, changed, moved, copied, removed = (own_album / name for name in ("new.jpg", *names[:4]))
    Image.new("RGB", (40, 30), "red").save(new)
    changed.write_bytes(changed.read_bytes() + b"\0")
    moved.rename(own_album / "a" / "elsewhere.jpg")
    shutil.copy(copied, own_album / "copy.jpg")
    removed.unlink()
    after = rows_of(run_index())
    assert sum(embedded) == 2
    assert after.keys() == (before.keys() | {"new.jpg", "copy.jpg", "a/elsewhere.jpg"}) - {names[1], names[3]}
    assert after["a/elsewhere.jpg"]["vector"] == before[names[1]]["vector"]
    assert after["a/elsewhere.jpg"]["folder"] == "a"
    assert after["copy.jpg"]["vector"] == after[names[2]]["vector"]
    assert after[names[0]]["hash"] != before[names[0]]["hash"]
    assert (after["new.jpg"]["width"], after["new.jpg"]["height"]) == (40, 30)
    assert {name: after[name] for name in names[4:]} == {name: before[name] for name in names[4:]}


def test_a_touched_file_is_read_but_not_embedded(run_index: Run, own_album: Path, embedded: list[int]) -> None:
    before = rows_of(run_index())
    embedded.clear()
    for path in own_album.rglob("*.jpg"):
        os.utime(path, (1, 1))
    after = rows_of(run_index())
    assert embedded == []
    assert {name: row["vector"] for name, row in after.items()} == {n: row["vector"] for n, row in before.items()}


def test_the_folder_may_move_as_a_whole(run_index: Run, own_album: Path, tmp_path: Path, embedded: list[int]) -> None:
    run_index()
    embedded.clear()
    moved = own_album.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"say --moved-to NEW"):
        build_index(str(moved), str(tmp_path / "photos.lance"), device="cpu")
    build_index(db=str(tmp_path / "photos.lance"), moved_to=[str(moved)], device="cpu")
    index = Index(tmp_path / "photos.lance", device="cpu")
    assert embedded == []
    assert all(row["path"] == str(moved / name) for name, row in rows_of(index).items())
    assert [root.location for root in index.engine.table.identity.roots] == [str(moved)]


def test_unreadable_images_are_left_out_and_listed(run_index: Run, own_album: Path, tmp_path: Path) -> None:
    (own_album / "broken.jpg").write_bytes(b"no image")
    first = sorted(own_album.glob("*.jpg"))[1]
    with pytest.raises(DataError, match=r"1 of the 37 images of .* are unreadable.*\n  broken.jpg: not an image"):
        run_index(max_unreadable=0.01)
    assert len(run_index()) == 36
    first.write_bytes(b"no image any more")
    index = run_index()
    assert first.name not in rows_of(index)
    listed = json.loads((derived_folder(str(tmp_path / "photos.lance")) / REPORT).read_text())
    assert listed["unreadable"].keys() == {"broken.jpg", first.name}
    assert listed["unreadable"][first.name].startswith("not an image (17 bytes")
    assert listed["skipped"].keys() == {"notes.md"}


def test_metadata_of_a_table_and_its_changes(train: Path, base: Path, tmp_path: Path, embedded: list[int]) -> None:
    table = pq.read_table(train)
    years = pa.array(range(2000, 2000 + len(table)))
    source, db = tmp_path / "t.parquet", str(tmp_path / "t.lance")
    pq.write_table(table.append_column("year", years).append_column("path", years), source)
    build_index(str(source), db, model=str(base), device="cpu")
    index = Index(db, device="cpu")
    row = rows_of(index)["train-00003-2"]
    assert (row["year"], row["source_path"], row["label"], row["shape"]) == (2014, 2014, "train-00003", row["shape"])
    assert row["captions"] == read_table(train).captions[14]
    assert row["path"] == f"{source}#14"
    assert index.image_file("train-00003-2")[0] == table["image"][14]["bytes"].as_py()
    found = index.search(image="id:train-00003-2", where="year > 2014 AND label <> 'train-00004'", k=99)
    assert {hit.metadata["year"] for hit in found} == set(range(2015, 2032)) - set(range(2016, 2020))
    embedded.clear()
    pq.write_table(table.append_column("year", pa.array([1900] * len(table))).append_column("size", years), source)
    build_index(str(source), db, device="cpu")
    row = rows_of(Index(db, device="cpu"))["train-00003-2"]
    assert (row["year"], row["size"], row["source_path"]) == (1900, 2014, None)
    assert embedded == []


def test_numbers_in_csv_are_numbers(own_album: Path, base: Path, tmp_path: Path) -> None:
    lines = [f"{path.name},{n},{n / 2},00{n}" for n, path in enumerate(sorted(own_album.glob("*.jpg")))]
    (own_album / "t.csv").write_text("image,year,price,code\n" + "\n".join(lines) + "\n")
    build_index(str(own_album / "t.csv"), str(tmp_path / "t.lance"), model=str(base), device="cpu")
    index = Index(tmp_path / "t.lance", device="cpu")
    types = {field.name: field.type for field in index.engine.table.schema}
    assert (types["year"], types["price"], types["code"]) == (pa.int64(), pa.float64(), pa.string())
    found = index.search(image=sorted(own_album.glob("*.jpg"))[0], where="year > 9 AND price < 5.2", k=99)
    assert [hit.metadata["code"] for hit in found] == ["0010"]


def test_uris(own_album: Path, base: Path, tmp_path: Path, embedded: list[int]) -> None:
    db = str(tmp_path / "u.lance")
    build_index(own_album.as_uri(), db, model=str(base), device="cpu")
    build_index(db=db, device="cpu")
    assert sum(embedded) == 36
    index = Index(db, device="cpu")
    name = sorted(rows_of(index))[0]
    assert rows_of(index)[name]["path"] == str(own_album / name)
    assert index.image_file(name) == ((own_album / name).read_bytes(), "image/jpeg")


def test_a_table_at_a_uri(train: Path, base: Path, tmp_path: Path) -> None:
    build_index(train.as_uri(), str(tmp_path / "u.lance"), model=str(base), device="cpu")
    index = Index(tmp_path / "u.lance", device="cpu")
    assert len(index) == 32
    content = pq.read_table(train)["image"][5]["bytes"].as_py()
    assert index.image_file("train-00001-1") == (content, "image/jpeg")


def test_ids_of_a_large_table_are_indexed(run_index: Run, own_album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unindexed(index: Index) -> list[int]:
        dataset = index.engine.table.dataset
        names = [described["name"] for described in dataset.list_indices()]
        return [dataset.stats.index_stats(name)["num_unindexed_rows"] for name in names]

    index = run_index()
    assert unindexed(index) == []
    monkeypatch.setattr("mcip.retrieval.table._IDS_TO_INDEX", 30)
    index = run_index()
    assert unindexed(index) == [0]
    removed = min(own_album.rglob("*.jpg"))
    for number in range(5):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(own_album / f"new{number}.png")
    removed.unlink()
    monkeypatch.setattr("mcip.retrieval.table._BEHIND", 0.5)
    index = run_index()
    assert unindexed(index) == [5]
    assert index.row("new3.png")["width"] == 40
    with pytest.raises(DataError, match="no image with the id"):
        index.row(removed.relative_to(own_album).as_posix())
    monkeypatch.setattr("mcip.retrieval.table._BEHIND", 0.01)
    assert unindexed(run_index()) == [0]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_make_the_same_table(workers: int, run_index: Run, indexed: Path) -> None:
    expected = rows_of(Index(indexed))
    found = rows_of(run_index(workers=workers, thumbnails=24))
    changing = ("path", "stamp", "vector")
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert {k: v for k, v in row.items() if k not in changing} == {
            k: v for k, v in expected[name].items() if k not in changing
        }
        np.testing.assert_allclose(row["vector"], expected[name]["vector"], atol=2e-3)


def test_what_is_refused(
    album: Path, indexed: Path, base: Path, tmp_path: Path, train: Path, tiny_config: dict[str, Any]
) -> None:
    db = str(tmp_path / "new.lance")
    other = models.save(models.from_config(tiny_config), tmp_path / "other")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.lance").write_text("x")
    before = open_table(str(indexed)).version
    for error, arguments, message in (
        (ConfigError, {"db": db}, "no index at .* yet: say which images"),
        (ConfigError, {"data": str(album), "db": db}, "say which model"),
        (DataError, {"data": str(tmp_path / "empty"), "db": db, "model": str(base)}, "it is empty"),
        (DataError, {"data": str(tmp_path / "nothing"), "db": db, "model": str(base)}, "no file or folder"),
        (DataError, {"data": "nowhere://x", "db": db, "model": str(base)}, "cannot be opened"),
        (ConfigError, {"data": str(album), "db": db, "model": str(base), "recall": 0}, "recall"),
        (ConfigError, {"data": str(album), "db": db, "model": str(base), "workers": -1}, "workers is -1"),
        (ArtefactError, {"data": str(album), "db": str(indexed), "model": str(other)}, "was made with the model"),
        (ConfigError, {"data": str(train), "db": str(indexed)}, "would delete .* from it: to keep it, name it too"),
        (ConfigError, {"data": str(album), "db": str(indexed), "thumbnails": 99}, "--thumbnails 24, not"),
        (ConfigError, {"data": str(album), "db": str(indexed), "transform": "paper"}, "--transform model"),
        (ArtefactError, {"db": str(tmp_path / "empty"), "check": True}, "is no index that can be opened"),
        (ArtefactError, {"data": str(album), "db": str(tmp_path / "file.lance"), "model": str(base)}, "cannot"),
    ):
        with pytest.raises(error, match=message):
            build_index(**{"device": "cpu", **arguments})  # type: ignore[arg-type]
    assert open_table(str(indexed)).version == before


def test_a_lance_table_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="not one that `mcip index` made"):
        create_table(str(tmp_path / "x.lance"), pa.schema({"a": pa.int64()}))
    with pytest.raises(ArtefactError, match="not one that `mcip index` made"):
        open_table(str(tmp_path / "x.lance"))


def test_a_table_of_another_version_of_mcip_is_refused(indexed: Path, tmp_path: Path) -> None:
    old = open_table(str(shutil.copytree(indexed, tmp_path / "old.lance")))
    old.dataset.update_schema_metadata({"mcip": json.dumps({"model": "toyshop", "source": "photos", "created": "x"})})
    with pytest.raises(ArtefactError, match=r"made by another version of mcip.*make it again"):
        open_table(old.uri)


def test_a_column_may_change_its_type(own_album: Path, base: Path, tmp_path: Path) -> None:
    names = [path.name for path in own_album.glob("*.jpg")]
    csv, db = own_album / "t.csv", str(tmp_path / "t.lance")
    csv.write_text("image,year\n" + "\n".join(f"{name},1" for name in names))
    build_index(str(csv), db, model=str(base), device="cpu")
    csv.write_text("image,year\n" + "\n".join(f"{name},{at or 'old'}" for at, name in enumerate(names)))
    build_index(str(csv), db, device="cpu")
    years = {name: row["year"] for name, row in rows_of(Index(db, device="cpu")).items()}
    assert years == {name: str(at or "old") for at, name in enumerate(names)}
    csv.write_text("image,year\n" + "\n".join(f"{name},7" for name in names))
    build_index(str(csv), db, device="cpu")
    assert {row["year"] for row in rows_of(Index(db, device="cpu")).values()} == {"7"}
