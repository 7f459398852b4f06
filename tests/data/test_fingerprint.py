"""A table's fingerprints change when a byte of an image does, and are quick the second time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from mcip.core import hashes
from mcip.core.hashes import ABSENT, cache_root, hash_file, hash_files
from mcip.data import Table, image_hashes, read_table
from tests.images import file_bytes, noise_image

from .conftest import MakeImage, embedded, write_csv, write_parquet
from .test_pools_and_tars import write_tar


def both(table: Table) -> tuple[str, str]:
    return table.fingerprint, table.images_fingerprint


def replace_unnoticed(path: Path, content: bytes) -> None:
    """Other contents of the same size, at the same place and time of change."""
    state = path.stat()
    assert state.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def all_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been there for long."""
    monkeypatch.setattr(hashes, "_SETTLED_NS", -(2**62))


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose contents are hashed."""
    names: list[str] = []

    def noted(path: str) -> bytes:
        names.append(Path(path).name)
        return hash_file(path)

    monkeypatch.setattr(hashes, "hash_file", noted)
    return names


def test_image_files(tmp_path: Path, make_image: MakeImage) -> None:
    path = make_image("a/1.bmp")
    path.write_bytes(file_bytes(noise_image(1), "BMP"))
    before = both(read_table(tmp_path))
    replace_unnoticed(path, file_bytes(noise_image(2), "BMP"))
    after = both(read_table(tmp_path))
    assert before[0] != after[0]
    assert before[1] != after[1]
    replace_unnoticed(path, file_bytes(noise_image(1), "BMP"))
    assert both(read_table(tmp_path)) == before


@pytest.mark.parametrize("write", [
    lambda path, image: write_parquet(path.with_suffix(".parquet"), {"image": [image]}),
    lambda path, image: write_tar(path.with_suffix(".tar"), {"0.bmp": image}),
])  # fmt: skip
def test_embedded_images(tmp_path: Path, write: Callable[[Path, bytes], Path]) -> None:
    first, second = (file_bytes(noise_image(seed), "BMP") for seed in (1, 2))
    path = write(tmp_path / "t", first)
    before = both(read_table(path))
    content = write(tmp_path / "other", second).read_bytes()
    replace_unnoticed(path, content)
    after = both(read_table(path))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_labels_do_not_change_the_images_fingerprint(tmp_path: Path) -> None:
    tables = [
        read_table(write_parquet(tmp_path / f"{label}.parquet", {"image": embedded(2), "label": [label, "x"]}))
        for label in ("a", "b")
    ]
    assert tables[0].images_fingerprint == tables[1].images_fingerprint
    assert tables[0].fingerprint != tables[1].fingerprint


def test_shards_and_parts_have_the_fingerprint_of_the_same_rows(tmp_path: Path) -> None:
    images = embedded(4)
    whole = read_table(write_parquet(tmp_path / "whole.parquet", {"image": images, "id": list("abcd")}))
    part = read_table(write_parquet(tmp_path / "part.parquet", {"image": images[1:3], "id": list("bc")}))
    assert both(whole.subset([3, 1, 2]).subset([1, 2])) == both(part)
    for name, rows in (("s-0", images[:2]), ("s-1", images[2:])):
        ids = list("ab") if name == "s-0" else list("cd")
        write_parquet(tmp_path / "shards" / f"{name}.parquet", {"image": rows, "id": ids})
    assert both(read_table(tmp_path / "shards")) == both(whole)


def test_files_and_embedded_images_of_the_same_bytes_are_the_same_images(tmp_path: Path, make_image: MakeImage) -> None:
    make_image("0.png")
    listed = read_table(write_csv(tmp_path / "t.csv", ["image", "id"], ["0.png", "x"]))
    stored = read_table(write_parquet(tmp_path / "t.parquet", {"image": [file_bytes(noise_image())], "id": ["x"]}))
    assert both(listed) == both(stored)


@pytest.mark.usefixtures("all_settled")
def test_a_file_is_hashed_once(tmp_path: Path, make_image: MakeImage, read_files: list[str]) -> None:
    first, second = make_image("a/1.png"), make_image("a/2.png", 1)
    before = both(read_table(tmp_path))
    assert sorted(read_files) == ["1.png", "2.png"]
    assert both(read_table(tmp_path)) == before
    assert len(read_files) == 2
    second.write_bytes(b"changed")
    assert both(read_table(tmp_path)) != before
    assert read_files[2:] == ["2.png"]
    first.rename(tmp_path / "a" / "3.png")
    read_table(tmp_path).fingerprint  # noqa: B018 - hashes
    assert read_files[3:] == ["3.png"]


def test_the_times_of_a_new_file_are_not_trusted(make_image: MakeImage, read_files: list[str]) -> None:
    """It may change again within one tick of its file system's clock."""
    path = make_image("1.png")
    hash_files([str(path)])
    hash_files([str(path)])
    assert read_files == ["1.png", "1.png"]


def test_an_embedded_image_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": embedded(3)})
    before = both(read_table(path))
    monkeypatch.setattr(image_hashes, "_hash_value", None)
    assert both(read_table(path)) == before
    assert both(read_table(path).subset([2]))


def test_damaged_memories_are_made_anew(
    tmp_path: Path, make_image: MakeImage, capsys: pytest.CaptureFixture[str]
) -> None:
    make_image("img/1.png")
    parquet = write_parquet(tmp_path / "t.parquet", {"image": embedded(3)})
    before = both(read_table(tmp_path / "img")), both(read_table(parquet))
    for file in cache_root().rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged" * 100)
    assert (both(read_table(tmp_path / "img")), both(read_table(parquet))) == before
    assert capsys.readouterr().err == ""


def test_without_a_memory_all_is_hashed(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_image("1.png")

    def full(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    assert hash_files([str(path)]) == [hash_file(path)]
    assert "disk is full" in capsys.readouterr().err


def test_missing_files_have_no_hash(tmp_path: Path, make_image: MakeImage) -> None:
    """Also one that vanishes after the table was read."""
    path = make_image("a/1.png")
    make_image("a/2.png", 1)
    table = read_table(tmp_path)
    path.unlink()
    assert hash_files([str(path), str(tmp_path), "x" * 5000, "a\0b"]) == [ABSENT] * 4
    assert table.fingerprint != read_table(tmp_path).fingerprint
    os.mkfifo(path)
    assert hash_files([str(path)]) == [ABSENT]


def test_many_files_in_bounded_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_FILES_AT_ONCE", 3)
    monkeypatch.setattr(hashes, "BAR_FROM", 5)
    paths = [tmp_path / f"{number}.bin" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    names = [str(path) for path in paths]
    assert hash_files(names) == [hash_file(path) for path in paths]


def test_rows_in_memory_are_hashed_each_time(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"image": embedded(2), "label": ["a", "b"]}
    data = datasets.Dataset.from_dict(
        rows, features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    )
    table = read_table(data)
    assert table.hashes is None
    assert both(table) == both(read_table(write_parquet(tmp_path / "t.parquet", rows)))
    assert both(read_table(data.select([1]))) != both(table.subset([0]))


def test_hashes_are_those_of_the_contents(make_image: MakeImage) -> None:
    path = make_image("1.png")
    same = read_table(path.parent)._image_hashes
    assert same.dtype == np.uint8
    assert same.shape == (1, 16)
    assert same[0].tobytes() == hash_file(path)
