"""What is written to a CSV or parquet file comes back as the table's rows, whatever the texts are."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcip.core.errors import DataError
from mcip.data import Table, read_captions, read_table
from tests.images import file_bytes, noise_image

from .conftest import MakeImage

# Texts as UTF-8 can hold them, with what CSV, JSON and line ends make difficult.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['a "b", c', "[", "[1]", " ", "\r\n", "a\nb", "NA", "null", "007", "1e5", "\ufeff", "=1", "naïve", "𝛼"]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.none() | TEXTS,
            "captions": st.lists(TEXTS, max_size=3),
            "split": st.sampled_from(["train", "valid", "test", "query"]),
        }
    ),
    min_size=1,
    max_size=5,
)
PROPERTY = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(table: Table, rows: list[dict[str, Any]]) -> None:
    assert table.labels == [row["label"] or None for row in rows]
    assert table.captions == [[text for text in row["captions"] if text.strip()] for row in rows]
    assert table.splits == [{"valid": "val"}.get(row["split"], row["split"]) for row in rows]
    assert table.ids == [f"row {number}" for number in range(len(rows))]


@PROPERTY
@given(rows=ROWS)
def test_csv(rows: list[dict[str, Any]], tmp_path: Path, make_image: MakeImage) -> None:
    make_image("a.png")
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "label", "captions", "split"])
        for number, row in enumerate(rows):
            captions = json.dumps(row["captions"])
            writer.writerow([f"row {number}", "a.png", row["label"], captions, row["split"]])
    assert_same(read_table(tmp_path / "t.csv"), rows)


@PROPERTY
@given(rows=ROWS, large=st.booleans())
def test_parquet(rows: list[dict[str, Any]], large: bool, tmp_path: Path) -> None:
    text = pa.large_string() if large else pa.string()
    columns = {name: [row[name] for row in rows] for name in ("label", "captions", "split")}
    content = {
        "id": [f"row {number}" for number in range(len(rows))],
        "image": [file_bytes(noise_image())] * len(rows),
        "label": pa.array(columns["label"], text),
        "captions": pa.array(columns["captions"], pa.list_(text)),
        "split": pa.array(columns["split"], text),
    }
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    assert_same(read_table(tmp_path / "t.parquet"), rows)


# Texts that numbers would make equal, and any others; an id may not be empty.
IDS = st.integers(-(2**70), 2**70).map(str) | st.sampled_from(["1", "01", "1.0", "1.10", "1.1", "1e5", "100000", "nan"])
IDS |= TEXTS.filter(lambda text: text.strip("\ufeff\r\n") != "")


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
@PROPERTY
@given(ids=st.lists(IDS, min_size=1, max_size=6))
def test_ids_are_kept_digit_by_digit_and_unique(kind: str, ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(file_bytes(noise_image()))
    source = written(kind, {"image": [str(tmp_path / "a.png")] * len(ids), "id": ids, "label": ids}, tmp_path)
    if len(set(ids)) < len(ids):
        with pytest.raises(DataError, match="have the same id"):
            read_table(source)
    else:
        table = read_table(source)
        assert table.ids == table.labels == ids


@PROPERTY
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6, unique=True))
def test_whole_numbers_are_kept_digit_by_digit(ids: list[int], tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"image": [file_bytes(noise_image())] * len(ids), "id": ids}
    for kind in ("parquet", "frame"):
        assert read_table(written(kind, rows, tmp_path)).ids == list(map(str, ids))


@PROPERTY
@given(names=st.lists(st.text("ab.1/", min_size=1, max_size=5), min_size=1, max_size=6))
def test_ids_of_tars_are_unique_or_refused(names: list[str], tmp_path: Path) -> None:
    """No two images get one id, whatever the members are called."""
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name in names:
            info = tarfile.TarInfo(f"{name}.png")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    try:
        table = read_table(tmp_path / "t.tar")
    except DataError:
        return
    assert len(set(table.ids)) == len(table)


def written(kind: str, columns: dict[str, list[Any]], folder: Path) -> Path | pd.DataFrame:
    if kind == "frame":
        return pd.DataFrame(columns)
    path = folder / f"ids.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("ending", ["txt", "parquet"])
@PROPERTY
@given(texts=st.lists(TEXTS.map(lambda text: text.replace("\r", "").replace("\n", "")), min_size=1, max_size=8))
def test_pools(ending: str, texts: list[str], tmp_path: Path) -> None:
    texts = ["first", *texts]
    pool = tmp_path / f"pool.{ending}"
    if ending == "txt":
        pool.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="")
    else:
        pq.write_table(pa.table({"caption": texts}), pool)
    assert read_captions(pool)["caption"][:] == [text for text in texts if text.strip()]
