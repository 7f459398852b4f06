"""Milvus 3 reads a table on object storage itself, as an external collection: no vector is copied.

Written to the documentation of Milvus 3.0 and to pymilvus 3.0, and never run against a server: see docs/scale.md.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError, EngineError
from mcip.core.optional import module
from mcip.retrieval.ann.hnsw import CONNECTIVITY, EXPANSION_ADD
from mcip.retrieval.identity import Milvus
from mcip.retrieval.milvus.collection import LOOK, STUCK, Collection, Held
from mcip.retrieval.milvus.columns import EXTERNAL, TEXT_BYTES, external_columns
from mcip.retrieval.milvus.connection import SECONDS, explained
from mcip.retrieval.milvus.filters import ALWAYS_EXTERNAL
from mcip.retrieval.table import IndexTable, quoted

# How Milvus reaches the table: `extfs` of its documentation, as JSON.
STORAGE: Final = "MCIP_MILVUS_STORAGE"
_PROVIDERS: Final = {"s3": "aws", "gs": "gcp", "az": "azure"}
_LEAST_VERSION: Final = 3
_COMPLETED: Final = "RefreshCompleted"
_FAILED: Final = "RefreshFailed"


def reads_tables(collection: Collection, table: IndexTable) -> bool:
    """Whether the server of a collection can read a table: it is of version 3 or later, and the table within reach."""
    if urlsplit(table.uri).scheme not in _PROVIDERS:
        return False
    with explained(collection.milvus):
        version: str = collection.client.get_server_version(timeout=SECONDS)
    major = version.lstrip("v").partition(".")[0]
    return major.isdecimal() and int(major) >= _LEAST_VERSION


def open_collection(table: IndexTable) -> Collection:
    """The collection that an index searches: a copy of the table, or an external one.

    Raises:
        EngineError: Milvus does not answer, or the collection is not this table's.
    """
    assert table.identity.milvus is not None
    collection = Collection(table, table.identity.milvus)
    external = collection.held is not None and collection.held.external
    return ExternalCollection(table, table.identity.milvus) if external else collection


class ExternalCollection(Collection):
    """A collection whose rows are those of the table. A hit is named by its id, since it has no row numbers."""

    named_by: ClassVar[str] = "id"

    def __init__(self, table: IndexTable, milvus: Milvus) -> None:
        super().__init__(table, milvus)
        self.table = table
        self.columns = external_columns(table)

    def create(self) -> Held:
        """Make the collection anew; its rows come with the first refresh."""
        types = module("pymilvus").DataType
        held = Held(self.created, [[column.name, column.held] for column in self.columns.values()], external=True)
        spec = json.dumps({"format": "lance-table", "extfs": storage(self.table.uri)})
        with explained(self.milvus):
            if self.client.has_collection(self.name, timeout=SECONDS):
                self.client.drop_collection(self.name, timeout=SECONDS)
            schema = self.client.create_schema(external_source=self.table.uri, external_spec=spec)
            schema.add_field("id", types.VARCHAR, max_length=TEXT_BYTES, external_field="id")
            schema.add_field("vector", types.FLOAT16_VECTOR, dim=self.dim, external_field="vector")
            for column in self.columns.values():
                length = {"max_length": TEXT_BYTES} if column.held == "text" else {}
                schema.add_field(
                    column.name, types[EXTERNAL[str(column.type)]], nullable=True, external_field=column.name, **length
                )
            self.client.create_collection(self.name, schema=schema, properties=self._properties(held), timeout=SECONDS)
        self.held = held
        return held

    def refresh(self) -> None:
        """Let Milvus take over the newest version of the table, and index its vectors.

        Raises:
            EngineError: It cannot read the table.
        """
        with explained(self.milvus):
            job = self.client.refresh_external_collection(self.name, timeout=SECONDS)
            facts = self.client.get_refresh_external_collection_progress(job, timeout=SECONDS)
            while facts.state not in (_COMPLETED, _FAILED):
                time.sleep(LOOK)
                facts = self.client.get_refresh_external_collection_progress(job, timeout=SECONDS)
            if facts.state == _FAILED:
                raise EngineError(
                    f"{self} cannot read {self.table.uri} ({facts.reason}): see that Milvus may, by its own settings "
                    f"or by {STORAGE}, drop the collection, and run `mcip index` again."
                )
            if not self.client.list_indexes(self.name, field_name="vector", timeout=SECONDS):
                index = self.client.prepare_index_params()
                parameters = {"M": CONNECTIVITY, "efConstruction": EXPANSION_ADD}
                index.add_index("vector", index_type="HNSW", metric_type="IP", params=parameters)
                self.client.create_index(self.name, index, timeout=20 * SECONDS)

    def wait_for_rows(self) -> None:
        """Wait until all rows of the table can be searched.

        Raises:
            EngineError: They do not come.
        """
        last, since = -1, time.monotonic()
        while (rows := self.count(now=True)) != len(self.table):
            if rows != last:
                last, since = rows, time.monotonic()
            elif time.monotonic() - since > STUCK:
                raise EngineError(
                    f"{self} finds {rows:,} images {STUCK // 60} minutes after its refresh, and {self.table.uri} has "
                    f"{len(self.table):,}: see the log of Milvus, and run `mcip index` again."
                )
            time.sleep(LOOK)

    def count(self, condition: str = ALWAYS_EXTERNAL, now: bool = False) -> int:
        """See `Collection.count`."""
        return super().count(condition, now)

    def sent(self, queries: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Queries in half precision, as the table's vectors are."""
        return queries.astype(np.float16)

    def found(self, answers: list[list[Any]]) -> list[NDArray[np.int64]]:
        """The `_rowid`s of the hits of some queries; -1 for what is not in this version of the table."""
        ids = [[str(hit["entity"]["id"]) for hit in hits] for hits in answers]
        every = sorted({id for some in ids for id in some})
        rows = self.table.read(["id"], f"id IN ({', '.join(map(quoted, every))})") if every else None
        known = {} if rows is None else dict(zip(rows["id"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
        return [np.array([known.get(id, -1) for id in some], np.int64) for some in ids]


def refresh(table: IndexTable) -> Held:
    """Bring the external collection to the newest version of its table; the caller holds the table's write lock.

    A load that was killed resumes: what is being loaded is recorded before.

    Raises:
        EngineError: Milvus fails, or cannot read the table.
    """
    table = _without_deletions(table)
    assert table.identity.milvus is not None
    collection = ExternalCollection(table, table.identity.milvus)
    held, columns = collection.held, [[column.name, column.held] for column in collection.columns.values()]
    if held is None or not held.external or held.columns != columns:
        held = collection.create()
    if held.version == table.version and not held.loading:
        return held
    held.loading = table.version
    collection.write(held)
    collection.refresh()
    collection.load()
    collection.wait_for_index()
    collection.wait_for_rows()
    held.version, held.rows, held.loading = table.version, len(table), 0
    collection.write(held)
    return held


def _without_deletions(table: IndexTable) -> IndexTable:
    """The table with fragments of live rows alone: Milvus knows fragments by their files, which deletions leave."""
    if not any(fragment.num_deletions for fragment in table.dataset.get_fragments()):
        return table
    table.dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
    return table.latest()


def storage(uri: str) -> dict[str, str]:
    """How Milvus reaches a table: what the environment variable says, else by the role of the machines it runs on.

    Raises:
        ConfigError: It says nothing, or the region is not known.
    """
    given = os.environ.get(STORAGE)
    if given:
        try:
            facts = json.loads(given)
        except ValueError:
            facts = None
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ConfigError(f'{STORAGE} is not a JSON object of texts, as {{"use_iam": "true"}} is.')
        return facts
    provider = _PROVIDERS[urlsplit(uri).scheme]
    facts = {"cloud_provider": provider, "use_iam": "true"}
    if provider == "aws":
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not region:
            raise ConfigError(f"Milvus has to know the region of {uri}: set AWS_DEFAULT_REGION, or {STORAGE}.")
        facts["region"] = region
    return facts
