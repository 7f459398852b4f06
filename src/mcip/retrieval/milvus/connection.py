"""A connection to Milvus, whose failures are told in the terms of an index."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mcip.core.errors import ConfigError, EngineError
from mcip.core.optional import module
from mcip.retrieval.identity import Milvus

# A token, or "user:password".
TOKEN: Final = "MCIP_MILVUS_TOKEN"
# An address that stands in for the one that the index names.
URI: Final = "MCIP_MILVUS_URI"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# Seconds after which a call has failed; pymilvus tries again until then.
SECONDS: Final = 30.0


def address(uri: str, collection: str) -> Milvus:
    """Where Milvus is, checked before it is recorded in an index.

    Args:
        uri: `http://HOST:PORT`, `https://...`, or the file of milvus-lite, which ends in `.db`.
        collection: The name of the collection.

    Raises:
        ConfigError: The URI is none, holds a password, or Milvus takes no collection of this name.
    """
    parts = urlsplit(uri)
    if not (parts.scheme in ("http", "https") and parts.hostname) and not ("://" not in uri and uri.endswith(".db")):
        raise ConfigError(f"{uri!r} is no address of Milvus: write http://HOST:19530, or a file that ends in .db.")
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "The address of Milvus is written into the index, where others can read it: leave user, password and "
            f"token out of it, and put them into the environment variable {TOKEN}, as USER:PASSWORD or a token."
        )
    if not _NAME.fullmatch(collection):
        raise ConfigError(f"{collection!r} is no name of a collection: use letters, digits and _, at most 255.")
    return Milvus(uri if parts.scheme else str(Path(uri).absolute()), collection)


def connect(milvus: Milvus) -> Any:
    """A `pymilvus.MilvusClient`.

    Raises:
        ConfigError: The extra `mcip[milvus]` is not installed.
        EngineError: Milvus does not answer.
    """
    pymilvus = module("pymilvus")
    # It writes a traceback of every failed call, which is told here in one sentence.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with explained(milvus):
        return pymilvus.MilvusClient(
            os.environ.get(URI) or milvus.uri, token=os.environ.get(TOKEN, ""), timeout=SECONDS
        )


@contextlib.contextmanager
def explained(milvus: Milvus) -> Iterator[None]:
    """Turn what pymilvus raises into an `EngineError`."""
    import grpc  # type: ignore[import-untyped]

    try:
        yield
    except (module("pymilvus").MilvusException, grpc.RpcError, ConnectionError) as error:
        reason = " ".join(str(getattr(error, "message", "") or error).split())[:300]
        raise EngineError(
            f"Milvus at {milvus.uri}, collection {milvus.collection}, has failed ({reason}). If it is not running, "
            f"start it; if it refuses the login, set {TOKEN}. Then run the same command again: the table is unharmed, "
            "and loading resumes where it stood."
        ) from error
