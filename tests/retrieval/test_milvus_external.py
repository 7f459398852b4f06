"""A table on object storage that Milvus 3 reads itself, against a stand-in that takes what its documentation says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

import mcip
from mcip.core.errors import ConfigError, EngineError
from mcip.retrieval.index import Index
from mcip.retrieval.milvus.external import STORAGE, storage
from mcip.retrieval.milvus.filters import ALWAYS_EXTERNAL

pymilvus = pytest.importorskip("pymilvus", reason="the extra mcip[milvus] is not installed")

PHOTOS, DB, MILVUS = "s3://images/photos", "s3://indexes/photos.lance", "http://milvus:19530"


@dataclass
class Job:
    """What `get_refresh_external_collection_progress` returns, in the fields that are read."""

    state: str
    reason: str = ""


@dataclass
class StandIn:
    """The calls of `pymilvus.MilvusClient` that an external collection takes; no others.

    A refresh takes over the rows of the Lance table at its source, as the documentation says that Milvus does.
    """

    version: str = "v3.0.1"
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    filters: dict[str, Callable[[dict[str, Any]], bool]] = field(default_factory=lambda: {"": lambda row: True})
    failure: str = ""
    dies: bool = False

    def get_server_version(self, *, timeout: float) -> str:
        return self.version

    def has_collection(self, name: str, *, timeout: float) -> bool:
        return name in self.collections

    def describe_collection(self, name: str, *, timeout: float) -> dict[str, Any]:
        return {"properties": self.collections[name]["properties"]}

    def drop_collection(self, name: str, *, timeout: float) -> None:
        self.calls.append("drop")
        del self.collections[name]

    def create_schema(self, *, external_source: str, external_spec: str) -> Any:
        return pymilvus.MilvusClient.create_schema(external_source=external_source, external_spec=external_spec)

    def create_collection(self, name: str, *, schema: Any, properties: dict[str, str], timeout: float) -> None:
        schema.verify()
        self.calls.append("create")
        self.collections[name] = {"schema": schema.to_dict(), "properties": properties, "rows": [], "index": None}

    def alter_collection_properties(self, name: str, properties: dict[str, str], *, timeout: float) -> None:
        self.collections[name]["properties"] |= properties

    def refresh_external_collection(self, name: str, *, timeout: float) -> int:
        if self.dies:
            raise pymilvus.MilvusException(message="the server is gone")
        self.calls.append("refresh")
        self.job, self.looks = name, 0
        return 17

    def get_refresh_external_collection_progress(self, job: int, *, timeout: float) -> Job:
        assert job == 17
        self.looks += 1
        if self.looks == 1:
            return Job("RefreshInProgress")
        if self.failure:
            return Job("RefreshFailed", self.failure)
        collection = self.collections[self.job]
        fields = {entry["name"]: entry["external_field"] for entry in collection["schema"]["fields"]}
        dataset = lance.dataset(collection["schema"]["external_source"])
        # Fragments are known by their files: of rows that are deleted in one, Milvus may learn nothing.
        assert not any(fragment.num_deletions for fragment in dataset.get_fragments())
        rows = dataset.to_table(columns=list(fields.values())).to_pylist()
        collection["rows"] = [{name: row[source] for name, source in fields.items()} for row in rows]
        return Job("RefreshCompleted")

    def list_indexes(self, name: str, *, field_name: str, timeout: float) -> list[str]:
        assert field_name == "vector"
        return ["vector"] if self.collections[name]["index"] else []

    def prepare_index_params(self) -> Any:
        return pymilvus.MilvusClient.prepare_index_params()

    def create_index(self, name: str, index: Any, *, timeout: float) -> None:
        # The documentation wants a refresh before it.
        assert self.collections[name]["rows"]
        (parameters,) = (entry.to_dict() for entry in index)
        assert parameters["field_name"] == "vector"
        assert (parameters["index_type"], parameters["metric_type"]) == ("HNSW", "IP")
        assert (parameters["M"], parameters["efConstruction"]) == (16, 128)
        self.calls.append("index")
        self.collections[name]["index"] = parameters

    def describe_index(self, name: str, field_name: str, *, timeout: float) -> dict[str, int]:
        return {"indexed_rows": len(self.collections[name]["rows"]), "pending_index_rows": 0}

    def load_collection(self, name: str, *, timeout: float) -> None:
        assert self.collections[name]["index"]

    def query(self, name: str, *, filter: str, output_fields: list[str], timeout: float, **level: str) -> list[Any]:
        assert output_fields == ["count(*)"]
        assert level in ({}, {"consistency_level": "Strong"})
        return [{"count(*)": sum(map(self.filters[filter], self.collections[name]["rows"]))}]

    def search(
        self, name: str, *, data: list[Any], limit: int, filter: str, output_fields: list[str], anns_field: str,
        search_params: dict[str, Any], timeout: float,
    ) -> list[list[dict[str, Any]]]:  # fmt: skip
        assert output_fields == ["id"]
        assert anns_field == "vector"
        assert search_params["metric_type"] == "IP"
        assert search_params["params"]["ef"] >= limit
        rows = [row for row in self.collections[name]["rows"] if self.filters[filter](row)]
        answers = []
        for query in data:
            assert query.dtype == np.float16
            scored = [(float(np.asarray(row["vector"], np.float32) @ query.astype(np.float32)), row) for row in rows]
            best = sorted(scored, key=lambda pair: -pair[0])[:limit]
            answers.append([{"id": 0, "distance": score, "entity": {"id": row["id"]}} for score, row in best])
        return answers


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    server = StandIn()
    server.filters |= {
        ALWAYS_EXTERNAL: lambda row: True,
        "(width is not null and width > 40)": lambda row: row["width"] > 40,
    }
    for module in ("collection", "connection"):
        monkeypatch.setattr(f"mcip.retrieval.milvus.{module}.connect", lambda milvus: server)
    monkeypatch.setattr("mcip.retrieval.milvus.external.LOOK", 0)
    return server


def run_index(base: Path, **parameters: Any) -> Index:
    settings = {"model": str(base), "device": "cpu", "shard_rows": 10, "max_removed": 1.0}
    mcip.index(PHOTOS, DB, **{**settings, "engine": "milvus", "uri": MILVUS, **parameters})
    return Index(DB, device="cpu")


def test_milvus_reads_the_table_and_finds_what_exact_search_does(client: Any, base: Path, server: StandIn) -> None:
    index = run_index(base)
    assert server.calls == ["create", "refresh", "index"]
    (collection,) = server.collections.values()
    schema = collection["schema"]
    assert schema["external_source"] == DB
    assert json.loads(schema["external_spec"]) == {
        "format": "lance-table",
        "extfs": {"cloud_provider": "aws", "region": "us-east-1", "use_iam": "true"},
    }
    types = {entry["name"]: pymilvus.DataType(entry["type"]).name for entry in schema["fields"]}
    assert types["id"] == types["path"] == "VARCHAR"
    assert (types["vector"], types["width"], types["height"]) == ("FLOAT16_VECTOR", "INT32", "INT32")
    assert not any(entry.get("is_primary") for entry in schema["fields"])
    assert all(entry["external_field"] == entry["name"] for entry in schema["fields"])
    for hit in index.browse(5):
        query = index.vector(hit.id)[None]
        for where in (None, "width > 40"):
            found, exact = (index.search_vectors(query, "image", 10, where, exact)[0] for exact in (False, True))
            assert [other.id for other in found] == [other.id for other in exact]
            assert [other.score for other in found] == pytest.approx([other.score for other in exact], abs=1e-3)


def test_an_update_is_a_refresh_of_fragments_without_deletions(client: Any, base: Path, server: StandIn) -> None:
    index = run_index(base)
    gone = [hit.id for hit in index.browse(3)]
    for id in gone:
        client.delete_object(Bucket="images", Key=f"photos/{id}")
    index = run_index(base)
    assert server.calls == ["create", "refresh", "index", "refresh"]
    assert len(index) == len(next(iter(server.collections.values()))["rows"]) == 33
    assert {hit.id for hit in index.search(text="a toy", k=40)}.isdisjoint(gone)
    run_index(base)
    assert server.calls == ["create", "refresh", "index", "refresh"]


def test_failures_are_told_and_the_same_command_resumes(client: Any, base: Path, server: StandIn) -> None:
    server.failure = "access denied"
    with pytest.raises(
        EngineError, match=r"cannot read s3://indexes/photos.lance \(access denied\).*MCIP_MILVUS_STORAGE"
    ):
        run_index(base)
    server.failure, server.dies = "", True
    with pytest.raises(EngineError, match=r"the server is gone.*start it"):
        run_index(base)
    with pytest.raises(EngineError, match="does not hold all"):
        Index(DB, device="cpu")
    server.dies = False
    index = run_index(base)
    assert server.calls == ["create", "refresh", "refresh", "index"]
    assert len(index.search(text="a toy", k=36)) == 36


def test_the_keys_of_the_storage_come_from_the_environment(
    client: Any, base: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    extfs = {"access_key_id": "AK", "access_key_value": "SK", "region": "none", "cloud_provider": "aws"}
    monkeypatch.setenv(STORAGE, json.dumps(extfs))
    index = run_index(base)
    (collection,) = server.collections.values()
    assert json.loads(collection["schema"]["external_spec"])["extfs"] == extfs
    assert b"SK" not in b"".join(index.engine.table.schema.metadata.values())
    for wrong in ("{", "[]", '{"use_iam": true}'):
        monkeypatch.setenv(STORAGE, wrong)
        with pytest.raises(ConfigError, match="JSON object"):
            storage(DB)


def test_the_region_is_needed_for_amazon_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", STORAGE):
        monkeypatch.delenv(name, raising=False)
    assert storage("gs://bucket/t.lance") == {"cloud_provider": "gcp", "use_iam": "true"}
    assert storage("az://container/t.lance") == {"cloud_provider": "azure", "use_iam": "true"}
    with pytest.raises(ConfigError, match="AWS_DEFAULT_REGION"):
        storage("s3://bucket/t.lance")
