"""What an index was made with: its model, its sources, and the format of its table, written in the table's schema."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from mcip.core.errors import ArtefactError

# Where it stands in the schema's metadata.
KEY: Final = b"mcip"
_FORMAT: Final = 2


@dataclass(frozen=True)
class Root:
    """One of the sources of an index.

    Attributes:
        kind: What it is, see `mcip.retrieval.listing.Listing`.
        location: Where it is, resolved by `mcip.retrieval.location.resolve`.
        prefix: What the ids of its images begin with; empty for the first source of an index.
        columns: Which of its columns are the table's, as `mcip.data.column_names.write_columns` writes them.
        raw_pairs: Whether camera RAW beside a JPEG or HEIC of the same name is indexed too.
    """

    kind: str
    location: str
    prefix: str = ""
    columns: str = ""
    raw_pairs: bool = False


@dataclass(frozen=True)
class Milvus:
    """Where Milvus holds the vectors of an index; no password is in it.

    Attributes:
        uri: `http://HOST:PORT`, or the file of milvus-lite.
        collection: The collection's name.
    """

    uri: str
    collection: str


@dataclass(frozen=True)
class Identity:
    """What an index was made with; it stands in the table's schema.

    Attributes:
        model: The name that the model was loaded by.
        fingerprint: `mcip.models.Model.fingerprint` of the model.
        dim: Dimension D of the vectors, shortened ones where they are.
        transform: The image transform, "model" or "paper".
        roots: What was indexed.
        thumbnails: Largest side of the thumbnails in pixels; 0 where there are none.
        created: Random, so that files derived from another table at the same place are not taken for this one's.
        format: Of the table.
        decode: How image files are read, "exact" or "fast".
        backend: What embedded images last: "torch", "onnx", or "onnx-int8".
        milvus: Where the vectors are searched; None if by this package's own engines.
        embedding: How vectors are stored, see `mcip.embeddings.compact.Compact`.
    """

    model: str
    fingerprint: str
    dim: int
    transform: str
    thumbnails: int
    created: str
    roots: tuple[Root, ...] = ()
    format: int = _FORMAT
    decode: str = "exact"
    backend: str = "torch"
    milvus: Milvus | None = None
    embedding: str = "float16"

    @classmethod
    def new(cls, **facts: Any) -> Identity:
        """An identity of these facts for a table that is created now."""
        return cls(**facts, created=uuid.uuid4().hex)


def identity_of(uri: str, schema: pa.Schema) -> Identity:
    """What the schema of the table at `uri` says that the index was made with.

    Raises:
        ArtefactError: It says nothing of it, or another version of mcip wrote it.
    """
    try:
        content = json.loads((schema.metadata or {})[KEY])
        if content.get("format") != _FORMAT:
            raise ArtefactError(
                f"{uri} was made by another version of mcip, whose indexes cannot be used: make it again with "
                "`mcip index` at another --db."
            )
        content["roots"] = tuple(Root(**root) for root in content["roots"])
        milvus = content.pop("milvus", None)
        return Identity(**content, milvus=Milvus(**milvus) if milvus else None)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{uri} is a Lance table, but not one that `mcip index` made: its schema says nothing of a model."
        ) from error
