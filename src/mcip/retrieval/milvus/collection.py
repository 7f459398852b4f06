"""The collection of an index in Milvus: its fields, what it holds, and how it is searched."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import EngineError
from mcip.core.optional import module
from mcip.retrieval.ann.calibrate import QueryKind, Setting
from mcip.retrieval.ann.exact import Ranked, ranking
from mcip.retrieval.ann.hnsw import CONNECTIVITY, EXPANSION_ADD
from mcip.retrieval.identity import Milvus
from mcip.retrieval.milvus.columns import ELEMENTS, FRAGMENT, NULLS, ROW, TEXT_BYTES, HeldColumn, held_columns
from mcip.retrieval.milvus.connection import SECONDS, connect, explained
from mcip.retrieval.milvus.filters import ALWAYS
from mcip.retrieval.table import IndexTable

# The most that Milvus returns for a query.
MOST: Final = 16_384
# Properties of the collection.
_STATE: Final = "mcip.state"
_FRAGMENTS: Final = "mcip.fragments"
_PAGE: Final = 10_000
# Seconds between two looks at what Milvus does, and that nothing may have changed for.
LOOK: Final = 0.5
STUCK: Final = 600


@dataclass
class Held:
    """What a collection holds; it stands in its properties.

    Attributes:
        table: `Identity.created` of the table.
        columns: The name of each column that filters may use, and what it is held as.
        version: The number of the table's version that is held; 0 before all of one has been loaded.
        rows: Its rows.
        loading: The number of the version that is being loaded; 0 if none is.
        settings: For each kind of query, how it is searched.
        calibrated_rows: Rows that the table had when that was measured.
        target: Recall@10 that it was calibrated for.
        fragments: For each of the table's fragments that was loaded, what its files were and how many of its rows were
            deleted; `["", 0]` where that had only begun.
        external: Whether Milvus reads the table itself; see `mcip.retrieval.milvus.external`.
    """

    table: str
    columns: list[list[str]]
    version: int = 0
    rows: int = 0
    loading: int = 0
    settings: dict[QueryKind, Setting] = field(default_factory=dict)
    calibrated_rows: int = 0
    target: float = 0.95
    fragments: dict[int, list[Any]] = field(default_factory=dict)
    external: bool = False


class Collection:
    """The collection of an index. It may be used by several threads.

    Attributes:
        named_by: The field by which a hit names its row.
    """

    named_by: ClassVar[str] = ROW

    def __init__(self, table: IndexTable, milvus: Milvus) -> None:
        """Connect to Milvus.

        Raises:
            EngineError: Milvus does not answer, or the collection is not this table's.
        """
        self.milvus, self.name = milvus, milvus.collection
        self.dim, self.created = table.identity.dim, table.identity.created
        self.columns: dict[str, HeldColumn] = held_columns(table)
        self.client = connect(milvus)
        self.held = self._read()

    def _read(self) -> Held | None:
        with explained(self.milvus):
            if not self.client.has_collection(self.name, timeout=SECONDS):
                return None
            facts = self.client.describe_collection(self.name, timeout=SECONDS).get("properties") or {}
        try:
            content = json.loads(facts[_STATE])
            settings = {kind: Setting(**setting) for kind, setting in content.pop("settings").items()}
            fragments = json.loads(zlib.decompress(base64.b64decode(facts[_FRAGMENTS])))
            held = Held(**content, settings=settings, fragments={int(key): value for key, value in fragments.items()})
        except (KeyError, ValueError, TypeError, AttributeError, zlib.error) as error:
            raise EngineError(f"{self} was not made by `mcip index`: choose another --collection.") from error
        if held.table != self.created:
            raise EngineError(f"{self} holds the vectors of another index: choose another --collection.")
        return held

    def __str__(self) -> str:
        return f"The collection {self.name} of Milvus at {self.milvus.uri}"

    def write(self, held: Held) -> None:
        """Record what the collection holds."""
        with explained(self.milvus):
            self.client.alter_collection_properties(self.name, self._properties(held), timeout=SECONDS)
        self.held = held

    def write_settings(self, settings: dict[QueryKind, Setting], target: float, rows: int) -> None:
        """Record how the collection is searched, beside what another process may have recorded meanwhile."""
        held = self._read()
        if held is not None:
            held.settings, held.target, held.calibrated_rows = settings, target, rows
            self.write(held)

    def _properties(self, held: Held) -> dict[str, str]:
        content = asdict(held)
        fragments = json.dumps(content.pop("fragments")).encode()
        return {_STATE: json.dumps(content), _FRAGMENTS: base64.b64encode(zlib.compress(fragments)).decode()}

    def create(self) -> Held:
        """Make the collection anew, empty."""
        types = module("pymilvus").DataType
        held = Held(self.created, [[column.name, column.held] for column in self.columns.values()])
        with explained(self.milvus):
            if self.client.has_collection(self.name, timeout=SECONDS):
                self.client.drop_collection(self.name, timeout=SECONDS)
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", types.VARCHAR, is_primary=True, max_length=TEXT_BYTES)
            schema.add_field("vector", types.FLOAT_VECTOR, dim=self.dim)
            schema.add_field(ROW, types.INT64)
            schema.add_field(FRAGMENT, types.INT64)
            schema.add_field(NULLS, types.ARRAY, element_type=types.INT64, max_capacity=ELEMENTS)
            for column in self.columns.values():
                schema.add_field(column.name, **_field(types, column))
            index = self.client.prepare_index_params()
            parameters = {"M": CONNECTIVITY, "efConstruction": EXPANSION_ADD}
            index.add_index("vector", index_type="HNSW", metric_type="IP", params=parameters)
            self.client.create_collection(
                self.name, schema=schema, index_params=index, properties=self._properties(held), timeout=SECONDS
            )
        self.held = held
        return held

    def load(self) -> None:
        """Let Milvus read the collection into memory, where it is not there."""
        with explained(self.milvus):
            self.client.load_collection(self.name, timeout=20 * SECONDS)

    def upsert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, in the place of those with the same ids."""
        with explained(self.milvus):
            self.client.upsert(self.name, list(rows), timeout=4 * SECONDS)

    def delete(self, condition: str) -> None:
        """Delete the rows that fulfil an expression."""
        with explained(self.milvus):
            self.client.delete(self.name, filter=condition, timeout=4 * SECONDS)

    def row_ids(self, fragment: int) -> Iterable[int]:
        """The `_rowid`s of the rows that are held as a fragment's."""
        with explained(self.milvus):
            pages = self.client.query_iterator(
                self.name, filter=f"{FRAGMENT} == {fragment}", output_fields=[ROW], batch_size=_PAGE,
                consistency_level="Strong", timeout=4 * SECONDS,
            )  # fmt: skip
            while page := pages.next():
                yield from (int(row[ROW]) for row in page)
            pages.close()

    def count(self, condition: str = ALWAYS, now: bool = False) -> int:
        """The rows that fulfil an expression; with `now`, as all that was written before leaves it."""
        level = {"consistency_level": "Strong"} if now else {}
        with explained(self.milvus):
            answer = self.client.query(
                self.name, filter=condition, output_fields=["count(*)"], timeout=4 * SECONDS, **level
            )
        return int(answer[0]["count(*)"])

    def settle(self) -> None:
        """Wait until what was written is on disk."""
        with explained(self.milvus):
            self.client.flush(self.name, timeout=20 * SECONDS)

    def indexed(self) -> tuple[int, int]:
        """Rows whose vectors are in the index, and rows that are not yet."""
        with explained(self.milvus):
            facts = self.client.describe_index(self.name, "vector", timeout=SECONDS)
        return int(facts.get("indexed_rows", 0)), int(facts.get("pending_index_rows", 0))

    def wait_for_index(self) -> None:
        """Wait until Milvus has built its index over all vectors: before, searching is slow.

        Raises:
            EngineError: It does not get on.
        """
        last, since = None, time.monotonic()
        while True:
            facts = self.indexed()
            if facts[1] == 0:
                return
            if facts != last:
                last, since = facts, time.monotonic()
            elif time.monotonic() - since > STUCK:
                raise EngineError(
                    f"{self} has been indexing its last {facts[1]:,} vectors for {STUCK // 60} minutes without "
                    "getting on: see the log of Milvus, and run `mcip index` again."
                )
            time.sleep(LOOK)

    def search(self, queries: NDArray[np.float32], k: int, width: int, condition: str = "") -> list[Ranked]:
        """Products and `_rowid`s of about the k nearest rows of each query (Q, D), ranked."""
        k = min(k, MOST)
        with explained(self.milvus):
            answers = self.client.search(
                self.name, data=list(self.sent(queries)), limit=k, filter=condition, output_fields=[self.named_by],
                anns_field="vector", search_params={"metric_type": "IP", "params": {"ef": max(width, k)}},
                timeout=SECONDS,
            )  # fmt: skip
        ranked = []
        for hits, row_ids in zip(answers, self.found([list(hits) for hits in answers]), strict=True):
            scores = np.array([hit["distance"] for hit in hits], np.float32)
            order = ranking(scores, row_ids)
            ranked.append((scores[order], row_ids[order]))
        return ranked

    def sent(self, queries: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Queries in the precision of the collection's vectors."""
        return queries

    def found(self, answers: list[list[Any]]) -> list[NDArray[np.int64]]:
        """The `_rowid`s of the hits of some queries."""
        return [np.array([hit["entity"][ROW] for hit in hits], np.int64) for hits in answers]


def _field(types: Any, column: HeldColumn) -> dict[str, Any]:
    scalar = {"steps": types.INT64, "double": types.DOUBLE, "boolean": types.BOOL, "text": types.VARCHAR}
    if column.held in ("texts", "integers"):
        element = types.VARCHAR if column.held == "texts" else types.INT64
        length = {"max_length": TEXT_BYTES} if column.held == "texts" else {}
        return {"datatype": types.ARRAY, "element_type": element, "max_capacity": ELEMENTS, **length}
    length = {"max_length": TEXT_BYTES} if column.held == "text" else {}
    return {"datatype": scalar[column.held], **length}
