"""Which engine holds the vectors of an index: files of this machine, or Milvus."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from mcip.core.errors import ConfigError

if TYPE_CHECKING:
    from mcip.retrieval.identity import Milvus
    from mcip.retrieval.table import IndexTable

EngineName: TypeAlias = Literal["local", "milvus"]


@dataclass(frozen=True)
class Engine:
    """What `mcip index` was asked for; see its parameters of these names."""

    engine: EngineName | None = None
    uri: str | None = None
    collection: str | None = None

    def __post_init__(self) -> None:
        if self.engine != "milvus" and (self.uri or self.collection):
            raise ConfigError("uri and collection are those of Milvus: add --engine milvus, or leave them out.")

    def check(self, table: IndexTable | None) -> None:
        """Find out before anything is embedded whether Milvus can be used.

        Raises:
            ConfigError: There is no address, or it is none, or the index stores vectors that Milvus cannot search.
            EngineError: Milvus does not answer, or the collection is another index's.
        """
        milvus = self._milvus(table)
        if milvus is None:
            return
        if table is not None:
            from mcip.retrieval.codec import check_engine, index_form

            check_engine(index_form(table.identity.embedding), "auto", milvus=True)
        if table is None:
            from mcip.retrieval.milvus.connection import connect

            connect(milvus)
        else:
            from mcip.retrieval.milvus.collection import Collection

            Collection(table, milvus)

    def record(self, table: IndexTable) -> IndexTable:
        """Write into the index which engine it has; returns the table's newest version."""
        milvus = self._milvus(table)
        if milvus == table.identity.milvus:
            return table
        return table.change_identity(milvus=asdict(milvus) if milvus else None)

    def _milvus(self, table: IndexTable | None) -> Milvus | None:
        known = table.identity.milvus if table is not None else None
        if self.engine != "milvus":
            return None if self.engine == "local" else known
        from mcip.retrieval.milvus.connection import URI, address

        created = table.identity.created if table is not None else "new"
        uri = self.uri or (known.uri if known else os.environ.get(URI))
        if not uri:
            raise ConfigError("Say where Milvus is, by --uri http://HOST:19530.")
        return address(uri, self.collection or (known.collection if known else f"mcip_{created}"))


def load_vectors(table: IndexTable) -> None:
    """Bring Milvus to a version of the table, where it holds the vectors; the caller holds the write lock."""
    if table.identity.milvus is not None:
        from mcip.retrieval.milvus.load import load

        load(table)
