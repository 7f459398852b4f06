"""How an index stores its vectors: in half precision, or in fewer bytes; see `mcip.embeddings.compact`.

Searches of this machine's engines read what is stored as float16 vectors of unit length; queries are shortened, not
rounded.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.embeddings.compact import SAMPLED, Codec, Compact

if TYPE_CHECKING:
    from mcip.retrieval.embedder import Embedder
    from mcip.retrieval.listing import Listing

# Where the codec stands in the schema's metadata of a table, as the base64 of its `.npz`.
KEY: Final = b"mcip.codec"
PLAIN: Final = "float16"


def index_form(text: str) -> Compact:
    """Read how an index shall store vectors: what `Compact.parse` takes, floats in half precision.

    Raises:
        ConfigError: It says something else, or float32.
    """
    compact = Compact.parse(text)
    if compact == Compact():
        raise ConfigError("An index keeps floats in half precision: say --embedding float16, or leave it out.")
    return dataclasses.replace(compact, kind="float16") if compact.kind == "float32" else compact


def check_engine(compact: Compact, ann: str, milvus: bool) -> None:
    """Refuse what an engine cannot search.

    Raises:
        ConfigError: The form is none for this engine.
    """
    engine = "Milvus" if milvus else "Lance's index on disk (--ann disk)" if ann == "disk" else None
    if engine and compact.kind != "float16":
        raise ConfigError(
            f"{engine} searches floats, which it quantizes by itself: it cannot search an index whose vectors are "
            f"stored as {compact}. Leave {compact.kind} out of --embedding; dim=N it can."
        )


def read_codec(uri: str, schema: pa.Schema) -> Codec | None:
    """The codec of a table; None where it keeps vectors as the model gives them, in half precision.

    Raises:
        ArtefactError: It is damaged.
    """
    content = (schema.metadata or {}).get(KEY)
    if content is None:
        return None
    try:
        return Codec.read(io.BytesIO(base64.b64decode(content, validate=True)))
    except ValueError as error:
        raise ArtefactError(f"{uri} is damaged: how it stores vectors cannot be read ({error}).") from error


def codec_metadata(codec: Codec | None) -> dict[bytes, bytes]:
    """A codec as metadata of a table's schema."""
    if codec is None:
        return {}
    file = io.BytesIO()
    codec.write(file)
    return {KEY: base64.b64encode(file.getvalue())}


def fit_codec(
    compact: Compact,
    listing: Listing,
    embedder: Embedder,
    batch_size: int,
    workers: int,
    embedded: dict[bytes, NDArray[np.float32]],
) -> Codec:
    """Fit a codec to images spread evenly over a listing, up to `SAMPLED` of them.

    Their embeddings are added to `embedded`, for `reuse_embedded`.

    Raises:
        DataError: None of them can be read.
    """
    from mcip.core.progress import progress
    from mcip.retrieval.prefetch import Reader, read_ahead

    numbers = iter(range(0, len(listing), -(-len(listing) // SAMPLED) or 1))
    parts = iter(lambda: list(islice(numbers, batch_size)), [])
    vectors = [np.empty((0, embedder.dim), np.float32)]
    with progress(f"embed a sample to fit {compact}", min(SAMPLED, len(listing)), "images") as advance:
        for batch in read_ahead(Reader(listing.content, embedder.transform, 0, set(), set()), parts, workers):
            if batch.embed:
                vectors.append(embedder.embed(batch.pixels))
                embedded |= zip(map(_digest, batch.pixels), vectors[-1], strict=True)
            advance(len(batch.numbers) + len(batch.unreadable))
    if len(vectors) == 1:
        raise DataError(f"None of the images of {listing.name} that were looked at can be read.")
    return Codec.fit(compact, np.concatenate(vectors))


def reuse_embedded(embedder: Embedder, embedded: dict[bytes, NDArray[np.float32]]) -> Embedder:
    """An embedder that takes the embeddings of images that were embedded already, and embeds the others."""

    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        digests = [_digest(image) for image in pixels]
        others = [at for at, digest in enumerate(digests) if digest not in embedded]
        vectors = np.empty((len(pixels), embedder.dim), np.float32)
        if others:
            vectors[others] = embedder.embed(pixels[others])
        for at, digest in enumerate(digests):
            if digest in embedded:
                vectors[at] = embedded[digest]
        return vectors

    return dataclasses.replace(embedder, embed=embed) if embedded else embedder


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()
