"""The index behind the API: opened while the server is up already, followed to newer versions, and searched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from mcip.core.errors import ConfigError, McipError
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.fusion import Part, weighted
from mcip.retrieval.index import NEGATIVE_WEIGHT, Index
from mcip.retrieval.results import Results
from mcip.server.metrics import Metrics
from mcip.server.query_encoder import QueryEncoder, Vector
from mcip.server.settings import BALANCE, MAX_DEPTH, Settings
from mcip.server.thumbnails import Thumbnails

log = logging.getLogger("mcip.serve")
Value = TypeVar("Value")
# Threads that decode, search and read from the table; each holds at most one decoded picture.
_WORKERS = 4


class NotReady(McipError):  # noqa: N818 - it passes
    """The index or its model is still being loaded."""


def filterable(index: Index) -> list[str]:
    """The columns that clients may filter by: where the files lie is not theirs to find out."""
    return [name for name in index.columns if name != "path"]


@dataclass(frozen=True)
class Query:
    """What is looked for: files of pictures, ids of the index, and texts."""

    images: Sequence[bytes] = ()
    ids: Sequence[str] = ()
    texts: Sequence[str] = ()
    negative_images: Sequence[bytes] = ()
    negative_ids: Sequence[str] = ()
    negative_texts: Sequence[str] = ()
    weights: Sequence[float] = ()
    balance: float = BALANCE
    where: str | None = None
    k: int = 24
    offset: int = 0
    exact: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is said of how the pictures shall look."""
        wanted = (*self.images, *self.ids, *self.texts)
        return not (wanted or self.negative_images or self.negative_ids or self.negative_texts)

    def all_weights(self) -> list[float] | None:
        """One for each picture, id and text: those that are given, or the balance shared out; None if all are equal."""
        if self.weights:
            return list(self.weights)
        pictures, texts = len(self.images) + len(self.ids), len(self.texts)
        if not (pictures and texts):
            return None
        return [2 * (1 - self.balance) / pictures] * pictures + [2 * self.balance / texts] * texts


@dataclass
class Service:
    """An index that is served. Used in one event loop only.

    Attributes:
        open: Opens the index.
        settings: Limits.
        metrics: Where things are counted.
        on_ready: Called when it is open.
        failure: Why it could not be opened.
        problem: Why the newest version of the table is not served.
    """

    open: Callable[[], Index]
    settings: Settings
    metrics: Metrics
    on_ready: Callable[[Index], None] | None = None
    failure: BaseException | None = None
    problem: str | None = None
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_WORKERS, "worker"))
    _opened: tuple[Index, QueryEncoder, Thumbnails] | None = None

    @property
    def ready(self) -> bool:
        """Whether queries can be answered."""
        return self._opened is not None

    @property
    def index(self) -> Index:
        """The index.

        Raises:
            NotReady: It is not loaded yet.
        """
        return self._loaded()[0]

    async def run(self) -> None:
        """Open the index, then follow it to newer versions until cancelled; `failure` says why it ended by itself."""
        # A thread of its own: what takes long here must hold up no query.
        with ThreadPoolExecutor(1, "index") as thread:
            loop = asyncio.get_running_loop()
            try:
                index = await loop.run_in_executor(thread, self._load)
            except Exception as error:
                self.failure = error
                return
            encoder = QueryEncoder(index.encoder, self.settings, self.metrics, self.workers)
            self._opened = index, encoder, Thumbnails(index, self.settings.cached_thumbnails)
            if self.on_ready is not None:
                self.on_ready(index)
            try:
                while True:
                    self._note(index)
                    await asyncio.sleep(self.settings.refresh_seconds)
                    await loop.run_in_executor(thread, self._refresh, index)
            finally:
                encoder.close()

    async def search(self, query: Query) -> Results:
        """Answer a query.

        Raises:
            NotReady: The index is not loaded yet.
            ConfigError: It cannot be searched for.
            DataError: An id is not in the index.
            UnreadableImage: An uploaded picture cannot be used.
        """
        index, _, _ = self._loaded()
        self._check(query, index)
        if query.empty:
            return await self.call(index.browse, query.k, query.offset, query.where)
        parts = await self._parts(query)
        return await self.call(
            index.search_parts, parts, query.k, query.offset, query.where, None, query.exact
        )  # fmt: skip

    async def similar(self, id: str, k: int, where: str | None) -> Results:
        """Pictures like one of the index; see `search`."""
        index, _, _ = self._loaded()
        self._check(Query(ids=[id], k=k, where=where), index)
        return await self.call(index.similar, id, k, where)

    async def thumbnail(self, id: str, side: int) -> bytes:
        """A picture of the index as JPEG, at most `side` pixels wide and high; see `Thumbnails`."""
        _, _, thumbnails = self._loaded()
        return await self.call(thumbnails.get, id, side)

    async def call(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)

    def close(self) -> None:
        """Let the threads end."""
        self.workers.shutdown(wait=False, cancel_futures=True)

    def _loaded(self) -> tuple[Index, QueryEncoder, Thumbnails]:
        if self._opened is None:
            raise NotReady("The index is being loaded: ask again in a moment.")
        return self._opened

    def _load(self) -> Index:
        index = self.open()
        # The first forward passes take longer than those that follow.
        index.encode_texts(["a picture"])
        index.encode_images([Image.new("RGB", (64, 64))])
        return index

    def _refresh(self, index: Index) -> None:
        try:
            index.refresh()
            self.problem = None
        except Exception as error:
            # The version that is open goes on being served.
            self.metrics.refresh_failures.inc()
            if self.problem is None:
                log.warning("A newer version of %s cannot be opened.", index.uri, exc_info=error)
            self.problem = str(error) if isinstance(error, McipError) else "The newest version cannot be opened."

    def _note(self, index: Index) -> None:
        self.metrics.pictures.set(len(index))
        self.metrics.version.set(index.engine.table.version)

    def _check(self, query: Query, index: Index) -> None:
        if query.k > self.settings.max_k or query.offset + query.k > MAX_DEPTH:
            raise ConfigError(
                f"k is {query.k} and offset {query.offset}: k may be {self.settings.max_k} and offset + k {MAX_DEPTH} "
                "at most. Narrow the query to see other pictures."
            )
        if query.where:
            compile_filter(query.where, index.engine.table.schema, filterable(index))

    async def _parts(self, query: Query) -> list[Part]:
        index, encoder, _ = self._loaded()
        kinds: tuple[tuple[Kind, Sequence[Awaitable[Vector]]], ...] = (
            ("image", [encoder.image(content) for content in query.images]),
            ("image", [self.call(index.vector, id) for id in query.ids]),
            ("text", [encoder.text(text) for text in query.texts]),
            ("image", [encoder.image(content) for content in query.negative_images]),
            ("image", [self.call(index.vector, id) for id in query.negative_ids]),
            ("text", [encoder.text(text) for text in query.negative_texts]),
        )
        vectors = iter(await asyncio.gather(*(one for _, group in kinds for one in group)))
        images, ids, texts, *away = [[next(vectors) for _ in group] for _, group in kinds]
        negatives = [
            (vector, kind) for (kind, _), group in zip(kinds[3:], away, strict=True) for vector in group
        ]  # fmt: skip
        return weighted([*images, *ids], texts, negatives, query.all_weights(), NEGATIVE_WEIGHT)
