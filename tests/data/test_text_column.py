"""Columns that stay in the memory map: the same as lists of strings, without those lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcip.core.errors import DataError, UnreadableImage
from mcip.data import read_table, text_column
from mcip.data.text_column import TextColumn, canonical_bytes, first_repeated, numbered
from tests.images import file_bytes, noise_image

TEXTS = st.lists(st.text(max_size=4), max_size=30)
WITH_NULLS = st.lists(st.none() | st.text(max_size=2), max_size=30)


def chunked(values: list[str | None], size: int, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    kind = kind or pa.string()
    return pa.chunked_array([pa.array(values[at : at + size], kind) for at in range(0, len(values), size)], kind)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_column, "_AT_ONCE", 4)


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_it_is_like_a_list(texts: list[str], size: int) -> None:
    column = TextColumn(chunked(list(texts), size))
    assert list(column) == texts
    assert column == texts
    assert column != [*texts, "x"]
    assert [column[row] for row in range(-len(texts), len(texts))] == texts + texts
    assert column[1:5] == texts[1:5]
    assert column[::-2] == texts[::-2]
    assert all(column.index(text) == texts.index(text) for text in texts)


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_the_first_repeated_text_is_found(texts: list[str], size: int) -> None:
    seen: dict[str, int] = {}
    expected = next(((seen[text], row) for row, text in enumerate(texts) if seen.setdefault(text, row) != row), None)
    assert first_repeated(chunked(list(texts), size)) == expected


def test_texts_of_equal_hashes_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_column, "_hashes", lambda column: np.zeros(len(column), np.int64))
    assert first_repeated(chunked(["a", "b", "c"], 2)) is None
    assert first_repeated(chunked(["a", "b", "c", "b"], 2)) == (1, 3)


@settings(max_examples=50, deadline=None)
@given(WITH_NULLS, st.integers(1, 7))
def test_texts_are_numbered_in_sorted_order(texts: list[str | None], size: int) -> None:
    names = sorted({text for text in texts if text is not None})
    found, numbers = numbered(chunked(texts, size))
    assert found == names
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [-1 if text is None else names.index(text) for text in texts]


@settings(max_examples=50, deadline=None)
@given(WITH_NULLS, WITH_NULLS, st.integers(1, 7), st.integers(1, 7))
def test_bytes_tell_columns_apart_and_not_their_chunks(
    one: list[str | None], other: list[str | None], size: int, other_size: int
) -> None:
    def content(values: list[str | None], chunk: int) -> bytes:
        return b"".join(canonical_bytes(chunked(values, chunk)))

    assert content(one, size) == content(one, other_size)
    assert (content(one, size) == content(other, size)) == (one == other)
    lists = [pa.chunked_array([pa.array([values, None, []], pa.list_(pa.string()))]) for values in (one, other)]
    first, second = (b"".join(canonical_bytes(column)) for column in lists)
    assert (first == second) == (one == other)


def uri_table(tmp_path: Path, name: str = "images") -> Path:
    """Three images in a parquet file, two of them URIs."""
    folder = tmp_path / name
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(file_bytes(noise_image(number), "PNG"))
    images = [f"file://{folder}/0.png", f"{folder}/1.png", f"file://{folder}/2.png"]
    pq.write_table(pa.table({"image": images, "label": ["b", None, "a"]}), tmp_path / f"{name}.parquet")
    return tmp_path / f"{name}.parquet"


def test_images_may_be_uris(tmp_path: Path) -> None:
    table = read_table(uri_table(tmp_path))
    for number in range(3):
        assert np.array_equal(np.asarray(table.image(number)), np.asarray(noise_image(number)))
    assert table.classes == ["a", "b"]
    assert table.label_numbers.tolist() == [1, -1, 0]
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(UnreadableImage, match="no object file://"):
        table.image(0)


def test_a_uri_stands_for_its_image_in_the_fingerprint(tmp_path: Path) -> None:
    path = uri_table(tmp_path)
    before = read_table(path)
    (tmp_path / "images" / "0.png").write_bytes(b"other")
    assert read_table(path).fingerprint == before.fingerprint
    (tmp_path / "images" / "1.png").write_bytes(b"other")
    assert read_table(path).fingerprint != before.fingerprint
    assert read_table(uri_table(tmp_path, "other")).images_fingerprint != before.images_fingerprint


def test_ids_and_splits_without_columns_of_their_own(tmp_path: Path) -> None:
    content = [file_bytes(noise_image(number), "PNG") for number in range(4)]
    splits = ["validation", "train", "val", "train"]
    pq.write_table(pa.table({"image": content, "split": splits}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.splits == ["val", "train", "val", "train"]
    assert table.ids == ["val/0", "train/0", "val/1", "train/1"]
    pq.write_table(pa.table({"image": content, "id": ["x", "y", "z", "y"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"rows 2 and 4 of b\.parquet have the same id 'y'"):
        read_table(tmp_path / "b.parquet")
