"""The Lance table of an index: its schema, and the few ways in which it is read and changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError
from mcip.core.files import explain_full_disk
from mcip.core.optional import module
from mcip.embeddings.compact import Codec
from mcip.retrieval.codec import codec_metadata, read_codec
from mcip.retrieval.commits import commit, compact, index_is_whole, refuse_cut_off
from mcip.retrieval.identity import KEY, Identity, identity_of
from mcip.retrieval.vector_column import no_vectors, vectors_array, vectors_of

# Columns of the index itself; a source's own columns of these names get the prefix `source_`.
OWN: Final = ("id", "vector", "path", "width", "height", "hash", "stamp", "thumbnail")
# What stays in the table when rows are shown.
HIDDEN: Final = frozenset(("vector", "thumbnail", "hash", "stamp"))
THUMBNAIL: Final = pa.field("thumbnail", pa.binary())
_PER_DELETE: Final = 1000
# From this many rows on, a scan for one id takes milliseconds.
_IDS_TO_INDEX: Final = 50_000
_IDS: Final = "mcip_ids"
# The share of rows that an index may lack before it is brought up to date; they are looked at one by one meanwhile.
_BEHIND: Final = 0.1
# Fragments of fewer rows are joined once there are more than this many of them.
_SMALL_FRAGMENT: Final = 8192
_SMALL_FRAGMENTS: Final = 32
# The share of deleted rows from which the rest is written anew.
_DELETED: Final = 0.1


def schema_of(identity: Identity, metadata: pa.Schema, codec: Codec | None = None) -> pa.Schema:
    """The table's schema: its own columns, then those of the source."""
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", vectors_array(no_vectors(identity, codec)).type, nullable=False),
        pa.field("path", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("hash", pa.string()),
        pa.field("stamp", pa.string()),
    ]
    if identity.thumbnails:
        fields.append(THUMBNAIL)
    return pa.schema([*fields, *metadata], {KEY: json.dumps(asdict(identity)).encode(), **codec_metadata(codec)})


class IndexTable:
    """One version of an index's table.

    Attributes:
        uri: Where it lies: a folder, or a URI of object storage.
        dataset: The `lance.LanceDataset`.
        identity: What it was made with.
    """

    def __init__(self, uri: str, dataset: Any) -> None:
        self.uri = uri
        self.dataset = dataset
        self.identity = identity_of(uri, dataset.schema)

    def __len__(self) -> int:
        return int(self.dataset.count_rows())

    @property
    def version(self) -> int:
        """The number of this version."""
        return int(self.dataset.version)

    @cached_property
    def version_key(self) -> str:
        """What no other version has, nor any version of another table that was put in this one's place."""
        manifest = hashlib.blake2b(self.dataset._ds.serialized_manifest(), digest_size=12).hexdigest()
        return f"{self.identity.created}:{self.version}:{manifest}"

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        schema: pa.Schema = self.dataset.schema
        return schema

    @property
    def metadata(self) -> list[str]:
        """The names of the source's columns."""
        return [name for name in self.schema.names if name not in OWN]

    @property
    def shown(self) -> list[str]:
        """The names of the columns that a result shows: all but vectors, thumbnails, hashes and stamps."""
        return [name for name in self.schema.names if name not in HIDDEN]

    def latest(self) -> IndexTable:
        """The newest version of the table."""
        return open_table(self.uri)

    def read(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """These columns, and `_rowid`: a number that a row keeps and that no other row ever gets.

        Args:
            columns: The columns' names.
            where: A condition of the engine's, of which every part is known: never what somebody wrote.

        Raises:
            ArtefactError: The table cannot be read.
        """
        try:
            return self.dataset.to_table(columns=list(columns), filter=where, with_row_id=True)
        except (ValueError, OSError) as error:
            raise ArtefactError(f"{self.uri} cannot be read: {brief(error)}") from error

    def take(self, row_ids: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """The rows with these `_rowid`s, in their order."""
        if len(row_ids) == 0:
            names = set(columns)
            return pa.schema([field for field in self.schema if field.name in names]).empty_table().select(columns)
        # Lance reads rows in the order of their numbers, and each of them once.
        unique, back = np.unique(row_ids, return_inverse=True)
        found = self.dataset._take_rows(unique.tolist(), columns=list(columns))
        if found.num_rows != len(unique):
            raise ArtefactError(f"{self.uri} lacks {len(unique) - found.num_rows} rows that were in it a moment ago.")
        return found if np.array_equal(unique, row_ids) else found.take(pa.array(back))

    def vectors(self, row_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """The vectors with these `_rowid`s, float16 of shape (n, D)."""
        return self._halves(vectors_of(self.take(row_ids, ["vector"])["vector"]))

    @cached_property
    def codec(self) -> Codec | None:
        """How vectors are stored; None where they are in half precision, as the model gives them."""
        return read_codec(self.uri, self.dataset.schema)

    def _halves(self, stored: NDArray[Any]) -> NDArray[np.float16]:
        return stored if self.codec is None else self.codec.restore(stored).astype(np.float16)

    def vector_batches(self, size: int = 16_384) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """All vectors, with their `_rowid`s, a batch of rows at a time."""
        for batch in self.dataset.to_batches(columns=["vector"], with_row_id=True, batch_size=size):
            yield batch["_rowid"].to_numpy().astype(np.int64), self._halves(vectors_of(batch["vector"]))

    def append(self, rows: pa.Table) -> IndexTable:
        """Add rows whose ids are not in the table, in one commit."""
        with explain_full_disk(Path(self.uri)):
            written = module("lance").fragment.write_fragments(
                rows.cast(self.schema), self.uri, mode="append", enable_stable_row_ids=True, return_transaction=True
            )
            return IndexTable(self.uri, commit(self.uri, written))

    def upsert(self, rows: pa.Table) -> IndexTable:
        """Add rows, those with an id that the table has in the place of the old ones, in one commit."""
        with explain_full_disk(Path(self.uri)):
            merge = self.dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            written, _ = merge.execute_uncommitted(rows.cast(self.schema))
            return IndexTable(self.uri, commit(self.uri, written))

    def delete(self, ids: Iterable[str]) -> IndexTable:
        """Delete the rows with these ids."""
        return self._delete("id", [quoted(name) for name in ids])

    def delete_rows(self, row_ids: Iterable[int]) -> IndexTable:
        """Delete the rows with these `_rowid`s."""
        return self._delete("_rowid", [str(number) for number in row_ids])

    def _delete(self, column: str, literals: Sequence[str]) -> IndexTable:
        for start in range(0, len(literals), _PER_DELETE):
            with explain_full_disk(Path(self.uri)):
                self.dataset.delete(f"{column} IN ({', '.join(literals[start : start + _PER_DELETE])})")
        return self.latest() if literals else self

    def tidy(self) -> IndexTable:
        """Join small fragments, drop deleted rows for good, and index the ids of a large table; row ids stay."""
        table, facts = self, self.dataset.stats.dataset_stats(max_rows_per_group=_SMALL_FRAGMENT)
        deleted, rows = facts["num_deleted_rows"], len(self)
        if facts["num_small_files"] > _SMALL_FRAGMENTS or deleted > _DELETED * (rows + deleted):
            with explain_full_disk(Path(self.uri)):
                compact(self.uri, self.dataset, _DELETED / 2)
            table = self.latest()
        if rows < _IDS_TO_INDEX:
            return table
        return table.grow_index(_IDS, lambda: table.dataset.create_scalar_index("id", "BTREE", name=_IDS))

    def forget_versions(self, older_than: timedelta) -> None:
        """Remove old versions, and the files that only they need. Readers that have one open must open the newest.

        What an interrupted commit left behind is removed once it is a week old.
        """
        self.dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)

    def add_columns(self, columns: Sequence[pa.Field]) -> IndexTable:
        """Add those of these columns that the table lacks, empty."""
        present = set(self.schema.names)
        new = [column for column in columns if column.name not in present]
        if not new:
            return self
        with explain_full_disk(Path(self.uri)):
            self.dataset.add_columns(pa.schema(new))
        return self.latest()

    def grow_index(self, name: str, create: Callable[[], object]) -> IndexTable:
        """Create an index of Lance's where there is none of this name, else add the new rows once they are many.

        Raises:
            ArtefactError: The disk is full.
        """
        present = name in [index.name for index in self.dataset.describe_indices()]
        with explain_full_disk(Path(self.uri)):
            if present and not index_is_whole(self.uri, self.dataset, name):
                self.dataset.drop_index(name)
                present = False
            if not present:
                create()
            elif self.dataset.stats.index_stats(name)["num_unindexed_rows"] > _BEHIND * len(self):
                self.dataset.optimize.optimize_indices(index_names=[name])
            else:
                return self
            changed = self.latest()
            if not index_is_whole(self.uri, changed.dataset, name):
                changed.dataset.drop_index(name)
                refuse_cut_off(Path(self.uri))
        return changed

    def change_identity(self, **changes: Any) -> IndexTable:
        """Record other facts of what it was made with."""
        content = json.dumps({**asdict(self.identity), **changes})
        with explain_full_disk(Path(self.uri)):
            self.dataset.update_schema_metadata({KEY.decode(): content})
        return self.latest()


def create_table(uri: str, schema: pa.Schema) -> IndexTable:
    """Create a table without rows.

    Raises:
        ArtefactError: There is something at `uri`.
    """
    lance = module("lance")
    try:
        with explain_full_disk(Path(uri)):
            dataset = lance.write_dataset(schema.empty_table(), uri, mode="create", enable_stable_row_ids=True)
    except (ValueError, OSError) as error:
        raise ArtefactError(f"A table cannot be created at {uri}: {brief(error)}") from error
    return IndexTable(uri, dataset)


def table_exists(uri: str) -> bool:
    """Whether there is a Lance table at `uri`."""
    try:
        module("lance").dataset(uri)
    except (ValueError, OSError):
        return False
    return True


def open_table(uri: str) -> IndexTable:
    """Open the newest version of an index's table.

    Raises:
        ArtefactError: There is no table at `uri`, or it is not one that `mcip index` made.
    """
    try:
        dataset = module("lance").dataset(uri)
    except (ValueError, OSError) as error:
        hint = "" if "://" in uri or Path(uri).exists() else " There is nothing at this place."
        raise ArtefactError(
            f"{uri} is no index that can be opened.{hint} `mcip index FOLDER --model MODEL --db {uri}` makes one. "
            f"(Lance says: {brief(error)})"
        ) from error
    return IndexTable(uri, dataset)


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def brief(error: BaseException) -> str:
    """What Lance says, without the places in its source."""
    return str(error).partition(", /")[0].removeprefix("Invalid user input: ").rstrip(". ")
