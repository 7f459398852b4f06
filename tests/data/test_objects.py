"""Tables and pools of objects in memory."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mcip.core.errors import DataError
from mcip.data import Table, read_captions, read_table
from tests.images import file_bytes, noise_image

from .conftest import MakeImage, embedded, write_csv
from .test_pools_and_tars import texts

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})


def data_set(*labels: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"image": embedded(len(labels)), "label": list(labels)}, features=FEATURES)


def test_path_like_objects(make_image: MakeImage) -> None:
    folder = make_image("x/a/1.png").parents[1]

    class Somewhere:
        def __fspath__(self) -> str:
            return str(folder)

    assert read_table(Somewhere()).ids == read_table(folder).ids == ["a/1.png"]


def test_a_table_is_returned(make_image: MakeImage) -> None:
    make_image("x/train/a/1.png")
    table = read_table(make_image("x/val/b/2.png").parents[2])
    assert read_table(table) is table
    assert read_table(table, split="val").labels == ["b"]
    with pytest.raises(DataError, match="no split 'test'"):
        read_table(table, split="test")
    with pytest.raises(DataError, match="is a table already"):
        read_table(table, columns={"label": "x"})


def test_data_set() -> None:
    table = read_table(data_set(0, 1, -1))
    assert (table.labels, table.ids) == (["cat", "dog", None], ["train/0", "train/1", "train/2"])
    assert table.image(1).tobytes() == noise_image(1).tobytes()
    part = read_table(data_set(0, 1, 1).select([2, 0]).with_format("numpy"))
    assert part.labels == ["dog", "cat"]
    assert part.image(0).tobytes() == noise_image(2).tobytes()


def test_data_set_with_added_columns(tmp_path: Path) -> None:
    """They lie in memory, beside images that are memory-mapped."""
    data_set(0, 1, 1).to_parquet(tmp_path / "t.parquet")
    stored = read_table(tmp_path / "t.parquet").rows
    added = stored.remove_columns(["label", "id"]).add_column("label", ["a", "b", "c"])
    for rows, labels in ((added, ["a", "b", "c"]), (added.select([2, 0]), ["c", "a"]), (stored, ["cat", "dog", "dog"])):
        table = read_table(rows)
        assert table.labels == labels
        assert [table.image(row).tobytes() for row in range(len(rows))] == [
            noise_image({"a": 0, "b": 1, "c": 2}.get(str(label), row)).tobytes() for row, label in enumerate(labels)
        ]
    assert read_table(datasets.concatenate_datasets([added, added])).labels == ["a", "b", "c"] * 2


def test_data_set_of_splits() -> None:
    table = read_table(datasets.DatasetDict(train=data_set(0, 1), validation=data_set(1)))
    assert (table.splits, table.ids) == (["train", "train", "val"], ["train/0", "train/1", "val/0"])
    assert read_table(datasets.DatasetDict(test=data_set(0)), split="test").labels == ["cat"]
    with pytest.raises(DataError, match="no splits"):
        read_table(datasets.DatasetDict())


def test_frame_of_paths(make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_image("a.png").parent
    make_image("b.png", 1)
    monkeypatch.chdir(folder)
    frame = pd.DataFrame({"path": ["a.png", folder / "b.png"], "label": [7, 7], 3: [object(), "x"]}, index=[5, 9])
    table = read_table(frame, columns={"image": "path"})
    assert (table.labels, table.ids) == (["7", "7"], ["a.png", str(folder / "b.png")])
    assert table.image(1).tobytes() == noise_image(1).tobytes()
    with pytest.raises(DataError, match="row 1 of the frame: no file gone"):
        read_table(pd.DataFrame({"image": ["gone.png"]}))


def test_whole_numbers_of_any_size_in_a_frame(make_image: MakeImage) -> None:
    paths = [str(make_image("a.png")), str(make_image("b.png", 1))]
    large = [109876543210987654321, -(10**40)]
    frame = pd.DataFrame({"image": paths, "id": large, "label": [1, 10**20], "other": large})
    table = read_table(frame)
    assert table.ids == [str(number) for number in large]
    assert table.labels == ["1", str(10**20)]


def test_frame_of_bytes_images_and_paths(make_image: MakeImage) -> None:
    path = make_image("a.png", 2)
    frame = pd.DataFrame(
        {"image": [file_bytes(noise_image()), noise_image(1), path], "label": pd.Categorical(["a", None, "b"])}
    )
    table = read_table(frame)
    assert [table.image(row).tobytes() for row in range(3)] == [noise_image(seed).tobytes() for seed in range(3)]
    assert table.labels == ["a", None, "b"]
    with pytest.raises(DataError, match="row 2 of the frame: no image"):
        read_table(pd.DataFrame({"image": [file_bytes(noise_image()), None]}))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_every_mode_keep_their_pixels(mode: str) -> None:
    grey = Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 100)
    image = grey if mode == "I;16" else noise_image().convert(mode)
    stored = read_table(pd.DataFrame({"image": [image]})).rows[0]["image"]["bytes"]
    with Image.open(io.BytesIO(stored)) as again:
        assert again.mode == mode
        assert again.tobytes() == image.tobytes()


def test_images_keep_their_orientation(make_image: MakeImage) -> None:
    path = make_image("a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(file_bytes(noise_image(), "PNG", exif=exif))
    with Image.open(path) as opened:
        upright = read_table(pd.DataFrame({"image": [opened]})).image(0)
    assert upright.size == (16, 24)


def test_wrong_objects() -> None:
    with pytest.raises(DataError, match=r"cannot be read from a builtins\.list: give a path"):
        read_table([1, 2])
    with pytest.raises(DataError, match="has a column twice"):
        read_table(pd.DataFrame([["a", "b"]], columns=["image", "image"]))
    with pytest.raises(DataError, match=r"column 'label' cannot be read .*must be of one type"):
        read_table(pd.DataFrame({"image": [file_bytes(noise_image())] * 2, "label": [1, "b"]}))
    with pytest.raises(DataError, match="images are paths, bytes or PIL images"):
        read_table(pd.DataFrame({"image": [np.asarray(noise_image())]}))
    with pytest.raises(DataError, match="has no rows"):
        read_table(pd.DataFrame({"image": []}, dtype=str))


def test_pools_of_objects() -> None:
    assert texts(pd.DataFrame({"caption": ["a", None, " ", "b"]})) == ["a", "b"]
    assert texts(pd.DataFrame({"Captions": [["a", "c"], []]})) == ["a", "c"]
    assert texts(datasets.Dataset.from_dict({"title": ["a", "b"]}), "title") == ["a", "b"]
    parts = {
        "train": datasets.Dataset.from_dict({"caption": ["a"]}),
        "x": datasets.Dataset.from_dict({"caption": ["b"]}),
    }
    assert texts(datasets.DatasetDict(parts)) == ["a", "b"]
    with pytest.raises(DataError, match="no column 'caption' or 'captions'"):
        read_captions(pd.DataFrame({"text": ["a"]}))


def test_frame_of_a_table_and_back(make_image: MakeImage) -> None:
    make_image("x/train/a/1.png")
    files = read_table(make_image("x/val/b/2.png", 1).parents[2])
    for table in (files, read_table(data_set(0, 1))):
        frame = table.to_pandas()
        assert list(frame.columns) == ["image", "label", "captions", "split", "id"]
        assert read_table(frame).fingerprint == table.fingerprint


def test_tables_can_be_keys(make_image: MakeImage) -> None:
    make_image("a/1.png")
    (make_image("a/2.png").parent / "x.md").write_text("x")
    table = read_table(make_image("a/3.png").parent)
    assert {table: 1}[table] == 1


def test_what_a_table_prints(make_image: MakeImage) -> None:
    make_image("a.png")
    make_image("b.png")
    rows = [["a.png", "x", "one", "train"], ["b.png", "", "", "test"]]
    path = write_csv(make_image("c.png").with_name("t.csv"), ["image", "label", "caption", "split"], *rows)
    table: Table = read_table(path)
    assert repr(table) == "Table('t.csv', images: 2; classes: 1; with captions: 1; splits: train, test)"
