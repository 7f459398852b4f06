"""A search that a running server answers in place of this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcip.core.choices import Fusion
from mcip.stages.inputs import IndexInput

if TYPE_CHECKING:
    from mcip.retrieval.results import Results
    from mcip.server.client import RemoteQuery


@dataclass(frozen=True)
class Request:
    """What is searched for: parameters of `mcip.stages.search.search`."""

    query: Any
    image: Any
    text: Any
    negative: Any
    weights: Sequence[float] | None
    where: str | None
    k: int
    offset: int
    exact: bool
    collapse: float | None
    min_score: float | str | None
    fusion: Fusion


def ask(url: str, request: Request, output: str, here: list[str]) -> Results:
    """Ask the server at an address.

    Args:
        url: Its address.
        request: What is searched for.
        output: See `mcip.stages.search.search`.
        here: Parameters that are given, but only mean something where the search is done here.

    Raises:
        ConfigError: It cannot do this.
        ServerError: It does not answer.
    """
    from mcip.core.errors import ConfigError
    from mcip.server.client import Client

    if here:
        raise ConfigError(f"A server answers the query, to which --{here[0]} means nothing: leave it out, or --server.")
    query = _remote(request)
    if query is None:
        raise ConfigError("A server takes images as files of this machine and ids of its index only.")
    results = Client(url, os.environ.get("MCIP_TOKEN") or None).search(query)
    if output == "paths" and not all(hit.path for hit in results):
        raise ConfigError(f"{url} does not tell where its images lie: use --output json or table.")
    return results


def ask_served(db: IndexInput, request: Request) -> Results | None:
    """Ask a server of the same user on this machine that serves this index; None where there is none that answers."""
    if not isinstance(db, str | os.PathLike):
        return None
    from mcip.core.errors import McipError
    from mcip.retrieval.location import is_remote, table_location
    from mcip.server.local import find

    note = None if is_remote(os.fspath(db)) else find(table_location(db))
    if note is None:
        return None
    from mcip.core.progress import console
    from mcip.server.client import Client

    query = _remote(request)
    if query is None:
        return None
    client = Client.of(note)
    if client is None:
        console.print(
            f"The server at {note.address} does not show in time that it serves this index: it is searched without the "
            "server.", soft_wrap=True,
        )  # fmt: skip
        return None
    try:
        results = client.search(query)
    except McipError as error:
        console.print(f"{error} The index is searched without the server.", soft_wrap=True)
        return None
    console.print(f"Answered by the server at {note.address}, which serves version {results.version}.", soft_wrap=True)
    return results


def _remote(request: Request) -> RemoteQuery | None:
    """The query as a server takes it; None where it has images that are no files of this machine, or nothing."""
    from mcip.server.client import RemoteQuery

    images: list[Any] = []
    texts: list[Any] = []
    for part in _listed(request.query):
        (images if _is_image(part) else texts).append(part)
    images, texts = [*images, *_listed(request.image)], [*texts, *map(str, _listed(request.text))]
    negative = _listed(request.negative)
    away = [part for part in negative if _is_image(part)]
    if (not images and not texts) or not all(_is_id(part) or _is_file(part) for part in [*images, *away]):
        return None
    weights = request.weights
    if weights is None:
        # A server balances images against texts where it is given no weights.
        weights = [1.0] * (len(images) + len(texts)) if images and texts else []
    elif len(weights) != len(images) + len(texts):
        return None
    else:
        # A server takes the weights of files before those of ids.
        order = sorted(range(len(images)), key=lambda at: _is_id(images[at]))
        weights = [*(weights[at] for at in order), *weights[len(images) :]]
    return RemoteQuery(
        [Path(part) for part in images if not _is_id(part)],
        [part[3:] for part in images if _is_id(part)],
        texts,
        [Path(part) for part in away if not _is_id(part)],
        [part[3:] for part in away if _is_id(part)],
        [str(part) for part in negative if not _is_image(part)],
        weights, request.where, request.k, request.offset, request.exact, request.collapse,
        None if request.min_score is None else str(request.min_score), request.fusion,
    )  # fmt: skip


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_id(part: Any) -> bool:
    return isinstance(part, str) and part.startswith("id:")


def _is_file(part: Any) -> bool:
    return isinstance(part, str | os.PathLike) and Path(part).is_file()


def _is_image(part: Any) -> bool:
    """Whether a part is an image; what can be nothing but a text is told without importing what reads images."""
    if isinstance(part, str) and not {"/", "\\", ".", ":"} & set(part):
        return False
    from mcip.retrieval.query import is_image

    return is_image(part)
