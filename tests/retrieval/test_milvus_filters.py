"""Filters as expressions of Milvus: random trees leave the rows that they mean, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from mcip.core.errors import ConfigError
from mcip.retrieval.filter_tree import Node
from mcip.retrieval.identity import Identity
from mcip.retrieval.milvus.collection import Collection
from mcip.retrieval.milvus.columns import ROW
from mcip.retrieval.milvus.filters import milvus_filter
from mcip.retrieval.milvus.load import load
from mcip.retrieval.table import create_table, schema_of
from mcip.retrieval.vector_column import vectors_array
from tests.retrieval.ann.cloud import DIM, cloud
from tests.retrieval.milvus_server import Server, faiss_of_numpy
from tests.retrieval.test_filter_trees import TREES, text_of, truth
from tests.retrieval.test_filters import ROWS, TABLE, TEXTS

pytest.importorskip("pymilvus", reason="the extra mcip[milvus] is not installed")
IDS = ["none" if text is None else text for text in TEXTS]
METADATA = TABLE.drop_columns(["id", "hash"])
SHOWN = ["id", *METADATA.column_names]
Finder = Callable[[str], list[int]]


def finder(place: Path, uri: str) -> Finder:
    """The numbers of the rows that a filter leaves in Milvus."""
    identity = Identity.new(model="none", fingerprint="f", dim=DIM, transform="model", thumbnails=0)
    table = create_table(str(place), schema_of(identity, METADATA.schema))
    own = {
        "id": IDS, "vector": vectors_array(cloud(ROWS)), "path": IDS, "width": pa.array([1] * ROWS, pa.int32()),
        "height": pa.array([1] * ROWS, pa.int32()), "hash": IDS, "stamp": IDS,
    }  # fmt: skip
    table = table.append(pa.table({**own, **dict(zip(METADATA.column_names, METADATA.columns, strict=True))}))
    table = table.change_identity(milvus={"uri": uri, "collection": f"mcip_{identity.created}"})
    load(table)
    assert table.identity.milvus is not None
    collection, numbers = Collection(table, table.identity.milvus), np.sort(table.read([])["_rowid"].to_numpy())

    def rows(where: str) -> list[int]:
        expression = milvus_filter(where, table.schema, SHOWN, collection.columns)
        rows = collection.client.query(collection.name, filter=expression, output_fields=[ROW])
        return sorted(int(np.searchsorted(numbers, row[ROW])) for row in rows)

    return rows


@pytest.fixture(scope="module")
def in_server(milvus_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Finder:
    return finder(tmp_path_factory.mktemp("filters") / "t.lance", milvus_server.uri)


@pytest.fixture(scope="module")
def in_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finder]:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    folder = tmp_path_factory.mktemp("filters")
    with faiss_of_numpy():
        yield finder(folder / "t.lance", str(folder / "vectors.db"))


@pytest.mark.parametrize("place", ["in_server", "in_lite"])
def test_any_tree_leaves_the_rows_that_it_means_or_is_refused(place: str, request: pytest.FixtureRequest) -> None:
    find: Finder = request.getfixturevalue(place)
    answered = []

    @given(tree=TREES)
    @settings(max_examples=250, derandomize=True, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    def check(tree: Node) -> None:
        table_rows = METADATA.add_column(0, "id", pa.array(IDS)).to_pylist()
        try:
            actual = find(text_of(tree))
        except ConfigError as error:
            if "Milvus" not in str(error):
                raise
            return
        answered.append(tree)
        assert actual == [number for number, row in enumerate(table_rows) if truth(tree, row)]

    check()
    assert len(answered) > 80


def test_what_milvus_cannot_answer_is_refused_by_name() -> None:
    schema = pa.schema({"id": pa.string(), "size": pa.uint64(), "odd name": pa.int32()})
    for where, name in (
        ("upper(id) = 'A'", "functions"), ("id ilike 'a%'", "ILIKE"), ("id like '%a'", "patterns"),
        ("contains(id, 'a')", "contains"), ("size = 3", "size"), ('"odd name" = 3', "odd name"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"{name}.*Milvus"):
            milvus_filter(where, schema, schema.names, {})


def test_a_text_of_the_client_stays_a_text() -> None:
    schema = pa.schema({"id": pa.string()})
    text = 'a" or mcip_row >= 0 or id == "\\'
    expected = '(id == "a\\" or mcip_row >= 0 or id == \\"\\\\")'
    assert milvus_filter(f"id = '{text}'", schema, ["id"], {}) == expected
