"""Real images in official layouts give the numbers that the same images give as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcip.core.files import read_json
from mcip.stages.evaluate import evaluate

REAL = Path(__file__).parents[3] / "shared" / "data"


def some(name: str, split: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a split of one of the real data sets."""
    rows: list[dict[str, Any]] = (
        pq.read_table(REAL / f"{name}.parquet", filters=[("split", "=", split)]).slice(0, count).to_pylist()
    )
    assert len(rows) == count
    return rows


def metrics(path: Path) -> dict[str, dict[str, float]]:
    return {entry["name"]: entry["metrics"] for entry in read_json(path)["tasks"]}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside the checkout (../shared/data)")
def test_official_layouts_and_a_table_of_the_same_images_agree(tmp_path: Path) -> None:
    data, birds, captioned = tmp_path / "data", some("cub100", "test", 300), some("flickr8k", "test", 200)
    categories = {label: number for number, label in enumerate(sorted({row["label"] for row in birds}))}
    images = data / "GPR1200" / "images"
    images.mkdir(parents=True)
    for number, row in enumerate(birds):
        (images / f"{categories[row['label']]}_{number}.jpg").write_bytes(row["image"]["bytes"])
    folder = data / "flickr30k" / "flickr30k-images"
    folder.mkdir(parents=True)
    lines = ["image,caption"]
    for number, row in enumerate(captioned):
        (folder / f"{number}.jpg").write_bytes(row["image"]["bytes"])
        lines += [f"{number}.jpg,{caption}" for caption in row["captions"]]
    (folder.parent / "flickr30k_test_karpathy.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    settings: dict[str, Any] = {"preset": "standard", "allow_counts": True}
    (official,) = evaluate(["toyshop=toyshop"], tmp_path / "out", suite="table1", data=str(data), **settings).paths
    found = metrics(official)
    for name, rows in (("birds", birds), ("captioned", captioned)):
        schema = pa.schema([field for field in pq.read_schema(REAL / "cub100.parquet") if field.name in rows[0]])
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
        (path,) = evaluate([f"{name}=toyshop"], tmp_path / "out", data=str(tmp_path / f"{name}.parquet")).paths
        expected = metrics(path)
        if name == "birds":
            assert found["GPR1200"]["map"] == pytest.approx(expected["i2i"]["map"], abs=1e-6)
            assert found["GPR1200"]["r10"] == pytest.approx(expected["i2i"]["r10"], abs=1e-6)
        else:
            assert found["Flickr30k"] == pytest.approx(expected["t2i"], abs=1e-6)
            assert found["Flickr30k"]["r5"] > 10 / len(captioned)
