"""Stages that read tables whose columns have other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mcip
from mcip.core.errors import ConfigError, DataError
from mcip.core.files import read_json
from mcip.data.column_names import caption_column, parse_columns, write_columns
from mcip.retrieval.table import open_table
from mcip.stages.pretrain import pretrain

NAMES = {"image": "file", "label": "category", "captions": "title, long"}
COLUMNS = 'image=file,label=category,"captions=title, long"'
HINT = "Its columns are 'file', 'category', 'title, long'.*--columns image=path"
SHORT: dict[str, Any] = {"steps": 1, "batch_size": 4, "device": "cpu"}


def renamed(table: Path, path: Path, names: dict[str, str] = NAMES) -> Path:
    rows = pq.read_table(table).select(list(names))
    pq.write_table(rows.rename_columns(list(names.values())).replace_schema_metadata(None), path)
    return path


@pytest.fixture
def other(train: Path, tmp_path: Path) -> Path:
    return renamed(train, tmp_path / "other.parquet")


@pytest.fixture
def usual(train: Path, tmp_path: Path) -> Path:
    """The same table with the usual names."""
    return renamed(train, tmp_path / "usual.parquet", {name: name for name in NAMES})


@pytest.mark.parametrize("name", ["embed", "mine", "tune", "align", "pretrain"])
def test_a_manifest_is_that_of_the_usual_names(
    name: str, other: Path, usual: Path, pool: Path, base: Path, tmp_path: Path
) -> None:
    stage: Any = pretrain if name == "pretrain" else getattr(mcip, name)
    inputs: dict[str, Any] = {
        "embed": {"model": base},
        "mine": {"model": base, "pool": pool},
        "tune": {"model": base, "method": "gpr-ft", "validate_every": 1, **SHORT},
        "align": {"model": base, **SHORT},
        "pretrain": {"config": base, **SHORT},
    }[name]
    other_validation = {"validation": str(other)} if name in ("tune", "pretrain") else {}
    usual_validation = {"validation": str(usual)} if other_validation else {}
    stage(data=str(other), out=tmp_path / "other", columns=COLUMNS, **inputs, **other_validation)
    stage(data=str(usual), out=tmp_path / "usual", **inputs, **usual_validation)
    made_from = [read_json(tmp_path / out / "manifest.json")["made_from"] for out in ("other", "usual")]
    assert made_from[0] == made_from[1]


def test_evaluation_and_its_yaml_suite(other: Path, usual: Path, base: Path, tmp_path: Path) -> None:
    (found,) = mcip.evaluate([f"m={base}"], tmp_path / "other", data=str(other), columns=NAMES)
    (expected,) = mcip.evaluate([f"m={base}"], tmp_path / "usual", data=str(usual))
    percents = [{name: task.percent for name, task in each.measured.items()} for each in (found, expected)]
    assert percents[0] == percents[1]
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"- {{name: i2i, kind: i2i, data: {other}, columns: 'image=file,label=category'}}\n")
    (by_suite,) = mcip.evaluate([f"m={base}"], tmp_path / "suite", suite=str(suite))
    assert by_suite.measured["i2i"].percent == expected.measured["i2i"].percent
    with pytest.raises(ConfigError, match="each task has its own key"):
        mcip.evaluate([f"m={base}"], tmp_path / "suite", suite=str(suite), columns=COLUMNS)


def test_an_index_remembers_them(other: Path, base: Path, tmp_path: Path) -> None:
    db = str(tmp_path / "t.lance")
    mcip.index(str(other), db, model=str(base), columns=COLUMNS)
    moved = tmp_path / "moved.parquet"
    runs: list[dict[str, Any]] = [{"data": [str(other)]}, {}, {"moved_to": [str(moved)]}]
    for options in runs:
        if "moved_to" in options:
            other.rename(moved)
        mcip.index(db=db, device="cpu", **options)
        rows = open_table(db).read(open_table(db).schema.names)
        assert {"label", "captions"} < set(rows.column_names), "and not category"
        assert "category" not in rows.column_names
        assert len(set(rows["label"].to_pylist())) == 8


def test_files_have_no_columns(tmp_path: Path, base: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match="have no columns"):
        mcip.index(str(tmp_path / "folder"), str(tmp_path / "t.lance"), model=str(base), columns=COLUMNS)


def test_what_is_missing_names_the_columns_there_are(other: Path, base: Path, tmp_path: Path) -> None:
    image = {"image": "file"}
    with pytest.raises(DataError, match=f"has a label.*{HINT}"):
        mcip.tune(other, tmp_path / "a", base, method="gpr-ft", columns=image)
    with pytest.raises(DataError, match=f"has a caption.*{HINT}"):
        mcip.align(other, tmp_path / "b", base, columns=image)
    with pytest.raises(DataError, match=f"neither labels nor captions.*{HINT}"):
        mcip.evaluate([f"m={base}"], tmp_path / "c", data=str(other), columns=image)
    suite = tmp_path / "suite.yaml"
    for kind, column in (("i2i", "label"), ("t2i", "caption")):
        suite.write_text(f"- {{name: a, kind: {kind}, data: {other}, columns: image=file}}\n")
        with pytest.raises(DataError, match=f"no row .* has a {column}.*{HINT}"):
            mcip.evaluate([f"m={base}"], tmp_path / kind, suite=str(suite))


def test_a_pool_of_captions(tmp_path: Path, train: Path, base: Path) -> None:
    pool = tmp_path / "pool.csv"
    pool.write_text("title,year\na mug,1\na star,2\n")
    mined = mcip.mine(train, pool, tmp_path / "mined", base, k=1, pool_columns="caption=title")
    assert set(mined.captions) <= {"a mug", "a star"}
    assert len(mcip.embed(pool, tmp_path / "embedded", base, what="captions", columns={"captions": "title"})) == 2
    with pytest.raises(DataError, match="--pool-columns"):
        mcip.mine(train, pool, tmp_path / "other", base)
    with pytest.raises(ConfigError, match="of a pool of captions it names caption"):
        caption_column("image=title")
    assert caption_column(None) is None


@pytest.mark.parametrize("columns", [NAMES, {"image": "a=b", "label": 'with "quotes"'}, {"id": "x"}])
def test_written_columns_are_read_again(columns: dict[str, str]) -> None:
    assert parse_columns(write_columns(columns)) == columns
    assert write_columns({}) == ""
