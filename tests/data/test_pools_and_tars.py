from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.core.errors import DataError
from mcip.data import read_captions, read_table
from tests.images import file_bytes, noise_image

from .conftest import MakeImage

REAL = Path(__file__).parents[3] / "shared" / "data"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def texts(source: Any, column: str | None = None) -> list[str]:
    pool = read_captions(source, column)
    assert pool.column_names == ["caption"]
    return list(pool["caption"][:])


# Tars


def test_webdataset_tar(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "shard-00.tar",
        {
            "./0.jpg": file_bytes(noise_image(), "JPEG"),
            "./0.txt": b"a dog\n",
            "./0.cls": b"3",
            "x/1.PNG": file_bytes(noise_image(1)),
            "x/1.json": json.dumps({"label": "cat", "captions": ["b", "c"], "split": "validation", "id": 7}).encode(),
            "2.png": file_bytes(noise_image(2)),
        },
    )
    table = read_table(path)
    assert table.ids == ["shard-00/0", "7", "shard-00/2"]
    assert table.labels == ["3", "cat", None]
    assert table.captions == [["a dog"], ["b", "c"], []]
    assert table.splits == ["train", "val", "train"]
    assert table.image(1).tobytes() == noise_image(1).tobytes()
    assert texts(path) == ["a dog", "b", "c"]
    assert texts(table) == ["a dog", "b", "c"]


def test_folder_and_glob_of_tars(tmp_path: Path) -> None:
    sample = {"0.png": file_bytes(noise_image()), "0.txt": b"x"}
    write_tar(tmp_path / "train" / "0.tar", sample)
    write_tar(tmp_path / "val" / "1.tar.gz", sample)
    assert read_table(tmp_path).splits == ["train", "val"]
    assert read_table(f"{tmp_path}/*/*.tar").ids == ["0/0"]
    assert texts(tmp_path) == ["x", "x"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.txt": b"x"}, r"sample 0 of t\.tar has no image; its members are \.txt"),
        ({"0.png": b"x", "0.json": b"{"}, r"sample 0 of t\.tar: its \.json member is not JSON"),
        ({"0.png": b"x", "0.txt": b"\xff"}, "not UTF-8"),
        ({"a.png": b"x", "b.png": b"x", "a.jpg": b"y"}, "rows 1 and 3 .* same id 't/a'"),
        ({}, "has no rows"),
    ],
)
def test_wrong_tar(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write_tar(tmp_path / "t.tar", members))


def test_cut_off_tar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {f"{i}.png": bytes(5000) for i in range(4)})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match="cut off"):
        read_table(path)
    path.write_bytes(b"no tar")
    with pytest.raises(DataError, match="no tar file"):
        read_captions(path)


# Pools


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.txt"
    path.write_text("\ufeffone\n\n  \ntwo, with comma\r\nthree\u2028still three", encoding="utf-8")
    assert texts(path) == ["one", "two, with comma", "three\u2028still three"]
    path.write_text("changed\n", encoding="utf-8")
    assert texts(path) == ["changed"]


def test_csv_pool(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["captions", "n"], ['["a", "b"]', "1"], ["", "2"], ["c", "3"]])
    assert texts(path) == ["a", "b", "c"]
    assert texts(path, "n") == ["1", "2", "3"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string()), pa.large_list(pa.string())])
def test_parquet_pool(tmp_path: Path, kind: pa.DataType) -> None:
    lists = kind not in (pa.string(), pa.large_string())
    values = [["a", " "], None, ["b", "a"]] if lists else ["a", " ", None, "b", "a"]
    pq.write_table(
        pa.table({"captions": pa.array(values, kind), "image": [b"x"] * len(values)}), tmp_path / "p.parquet"
    )
    assert texts(tmp_path / "p.parquet") == ["a", "b", "a"]


def test_pool_of_a_part_of_a_table(tmp_path: Path) -> None:
    rows = {"image": [file_bytes(noise_image())] * 3, "captions": [["a"], ["b", "c"], []]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert texts(table.subset([1, 0])) == ["b", "c", "a"]


def test_hub_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "train": datasets.Dataset.from_dict({"caption": ["a"]}),
        "test": datasets.Dataset.from_dict({"caption": ["b"]}),
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration: datasets.DatasetDict(parts))
    assert texts("someone/captions") == ["a", "b"]


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_pool(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="the pool is empty"):
        read_captions(tmp_path / "p.txt")


def test_empty_pools_of_other_kinds(tmp_path: Path, make_image: MakeImage) -> None:
    pq.write_table(pa.table({"caption": [" ", None]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="the pool is empty"):
        read_captions(tmp_path / "p.parquet")
    make_image("folder/a/1.png")
    with pytest.raises(DataError, match="without captions"):
        read_captions(tmp_path / "folder")
    with pytest.raises(DataError, match="the pool is empty"):
        read_captions(read_table(tmp_path / "folder"))


def test_wrong_pool(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"title": ["a"], "number": [1]}), path)
    with pytest.raises(DataError, match=r"no column 'caption' or 'captions'.*'title', 'number'"):
        read_captions(path)
    with pytest.raises(DataError, match="no column 'titel'; did you mean 'title'"):
        read_captions(path, "titel")
    with pytest.raises(DataError, match="'number' holds int64"):
        read_captions(path, "number")
    assert texts(path, "title") == ["a"]
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cannot read .*p\.parquet"):
        read_captions(path)
    (tmp_path / "p.txt").write_bytes(b"na\xefve")
    with pytest.raises(DataError, match="UTF-8"):
        read_captions(tmp_path / "p.txt")
    with pytest.raises(DataError, match="no file or folder"):
        read_captions(tmp_path / "gone.txt")


ACCOUNT = Path("/proc/self/smaps_rollup")


def private_memory() -> int:
    """Bytes of this process that are not mapped from files."""
    line = next(line for line in ACCOUNT.read_text().splitlines() if line.startswith("Anonymous:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not ACCOUNT.exists(), reason="needs Linux's account of a process's memory")
@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_pool_is_mapped_not_loaded(tmp_path: Path, kind: str) -> None:
    """Going through a pool of 100 MB takes no more private memory than a few batches of 5 MB do."""
    count, caption = 100_000, "x" * 1000
    path = tmp_path / f"p.{kind}"
    if kind == "txt":
        path.write_text(f"{caption}\n" * count)
    else:
        pq.write_table(pa.table({"captions": [[caption] * 2] * (count // 2)}), path, row_group_size=5000)
    pool = read_captions(path)
    before = private_memory()
    assert sum(len(text) for batch in pool.iter(5_000) for text in batch["caption"]) == count * 1000
    assert private_memory() - before < 40_000_000


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside the checkout (../shared/data)")
def test_real_pool() -> None:
    assert len(read_captions(REAL / "captions.parquet")) == 137_191
