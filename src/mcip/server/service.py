"""The index behind the API: opened while the server is up already, followed to newer versions, and searched."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from PIL import Image

from mcip.core.choices import Fusion
from mcip.core.errors import ConfigError, McipError
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.fusion import Part, weighted
from mcip.retrieval.index import NEGATIVE_WEIGHT, Index
from mcip.retrieval.results import Results
from mcip.retrieval.table import open_table
from mcip.server.batching import Batcher
from mcip.server.files import IndexedFile, OpenFile
from mcip.server.metrics import Metrics
from mcip.server.query_encoder import QueryEncoder, Vector
from mcip.server.scans import Scan, scan_together
from mcip.server.settings import BALANCE, MAX_DEPTH, Settings
from mcip.server.thumbnails import Thumbnails

log = logging.getLogger("mcip.serve")
Value = TypeVar("Value")
# Threads that decode, search and read from the table; each holds at most one decoded image.
_WORKERS: Final = 4
PROBLEM: Final = "The newest version of the index cannot be opened: the server's log says why."


class NotReady(McipError):  # noqa: N818 - it passes
    """There is no answer now, but there will be; the message is for clients."""


@dataclass(frozen=True)
class Query:
    """What is searched for: files of images, ids of the index, and texts."""

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
    collapse: float | None = None
    min_score: str | None = None
    fusion: Fusion = "sum"

    @property
    def empty(self) -> bool:
        """Whether there are no images and texts in it."""
        positive = (*self.images, *self.ids, *self.texts)
        return not (positive or self.negative_images or self.negative_ids or self.negative_texts)

    def all_weights(self) -> list[float] | None:
        """One for each image, id and text: those that are given, or the balance shared out; None if all are equal."""
        if self.weights:
            return list(self.weights)
        images, texts = len(self.images) + len(self.ids), len(self.texts)
        if not (images and texts):
            return None
        return [2 * (1 - self.balance) / images] * images + [2 * self.balance / texts] * texts


@dataclass(frozen=True)
class Loaded:
    """An opened index and what belongs to it.

    Attributes:
        index: The index. A request takes one version of it, by `Service.current`, and uses no other.
        encoder: Embeds the parts of queries.
        thumbnails: Thumbnails that were made.
    """

    index: Index
    encoder: QueryEncoder
    thumbnails: Thumbnails

    @property
    def version(self) -> int:
        """The number of the version that is open."""
        return self.index.engine.table.version

    @property
    def filterable(self) -> list[str]:
        """The columns that clients may filter by: where the files lie is kept from them."""
        return [name for name in self.index.columns if name != "path"]


@dataclass
class Service:
    """An index that is served. Used in one event loop only.

    Attributes:
        open: Opens the index.
        settings: Limits.
        metrics: Where things are counted.
        on_ready: Called when it is open.
        wait: Called in a thread before the first queries are answered: waits for what shall be ready by then too.
        failure: Why it could not be opened.
        problem: What `/healthz` says while the newest version cannot be opened.
    """

    open: Callable[[], Index]
    settings: Settings
    metrics: Metrics
    on_ready: Callable[[Index], None] | None = None
    wait: Callable[[], object] | None = None
    failure: BaseException | None = None
    problem: str | None = None
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_WORKERS, "worker"))
    _loaded: Loaded | None = None
    _held: int = 0

    def __post_init__(self) -> None:
        self._scans: Batcher[Scan, Results] = Batcher(scan_together, self.workers, self.settings.batch_size, 0.0)

    @property
    def ready(self) -> bool:
        """Whether queries can be answered."""
        return self._loaded is not None

    @property
    def current(self) -> Loaded:
        """The version of the index that is open now. It stays as it is when a newer one is opened.

        Raises:
            NotReady: The index is not loaded yet.
        """
        if self._loaded is None:
            raise NotReady("The index is being loaded: ask again in a moment.")
        loaded = self._loaded
        return Loaded(copy.copy(loaded.index), loaded.encoder, loaded.thumbnails)

    async def run(self) -> None:
        """Open the index, then follow it to newer versions until cancelled; `failure` says why it ended by itself."""
        # A thread of its own: what takes long here must hold up no query.
        with ThreadPoolExecutor(1, "index") as thread:
            loop = asyncio.get_running_loop()
            try:
                loaded = await loop.run_in_executor(thread, self._load)
                if self.wait is not None:
                    await loop.run_in_executor(thread, self.wait)
                self._loaded = loaded
            except Exception as error:
                self.failure = error
                return
            if self.on_ready is not None:
                self.on_ready(loaded.index)
            try:
                while True:
                    await loop.run_in_executor(thread, _prepare, self._loaded.index)
                    self.metrics.images.set(len(self._loaded.index))
                    self.metrics.version.set(self._loaded.version)
                    await asyncio.sleep(self.settings.refresh_seconds)
                    self._loaded = await loop.run_in_executor(thread, self._refresh, self._loaded)
            finally:
                self._loaded.encoder.close()

    async def search(self, query: Query) -> tuple[Results, int]:
        """Answer a query from one version of the index; its number is returned as well.

        Raises:
            NotReady: The index is not loaded yet.
            ConfigError: It cannot be searched for.
            DataError: An id is not in the index.
            UnreadableImage: An uploaded image cannot be used.
        """
        current = self.current
        self._check(query, current)
        index = current.index
        if query.empty:
            return await self.call(index.browse, query.k, query.offset, query.where, query.collapse), current.version
        parts = await self._parts(query, current)
        snapshot = index.snapshot()
        simple = len(parts) == 1 and parts[0].weight > 0 and not query.where
        simple = simple and query.collapse is None and query.min_score is None
        if simple and snapshot.engine.scans:
            return await self._scans(Scan(snapshot, parts[0], query.k, query.offset)), current.version
        results = await self.call(
            snapshot.search_parts, parts, query.k, query.offset, query.where, None, query.exact, query.collapse,
            query.min_score, query.fusion,
        )  # fmt: skip
        return results, current.version

    async def similar(self, id: str, k: int, where: str | None, min_score: str | None = None) -> tuple[Results, int]:
        """Images like one of the index, and the version; see `search`."""
        current = self.current
        self._check(Query(ids=[id], k=k, where=where), current)
        return await self.call(current.index.similar, id, k, where, 0, min_score), current.version

    async def file(self, id: str) -> OpenFile:
        """The file of an image of the index, which the caller closes, and then calls `release`.

        Raises:
            DataError: There is no such id.
            UnreadableImage: See `IndexedFile.open`.
            NotReady: Too many bytes of images are being sent from memory.
        """
        indexed = await self.call(IndexedFile.find, self.current.index.engine.table, id)
        if self._held >= self.settings.max_held:
            raise NotReady("Too many images are being sent: ask again in a moment.")
        file = await self.call(indexed.open, self.settings.max_file)
        self._held += file.held
        return file

    def release(self, file: OpenFile) -> None:
        """Note that a file has been sent."""
        self._held -= file.held

    async def thumbnail(self, id: str, side: int) -> tuple[bytes, str]:
        """An image of the index as JPEG, at most `side` pixels wide and high; see `Thumbnails`."""
        current = self.current
        return await self.call(current.thumbnails.get, current.index, id, side)

    async def call(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)

    def close(self) -> None:
        """Let the threads end."""
        self.workers.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> Loaded:
        index = self.open()
        # The first forward passes take longer than those that follow.
        index.encode_texts(["an image"])
        index.encode_images([Image.new("RGB", (64, 64))])
        thumbnails = Thumbnails(self.settings.cached_thumbnails, self.settings.max_file)
        return Loaded(index, QueryEncoder(index.encoder, self.settings, self.metrics, self.workers), thumbnails)

    def _refresh(self, loaded: Loaded) -> Loaded:
        """The newest version, or the one that is open where there is none or it cannot be opened."""
        index = loaded.index
        try:
            newest = open_table(index.uri)
            if newest.identity.created == index.engine.table.identity.created:
                index.refresh()
            elif len(newest) > 0:
                # Another index was made at the same place, perhaps with another model. Requests that are being
                # answered keep the encoder that they have.
                loaded = self._load()
            self.problem = None
        except Exception as error:
            self.metrics.refresh_failures.inc()
            if self.problem is None:
                log.warning("A newer version of %s cannot be opened.", index.uri, exc_info=error)
            self.problem = PROBLEM
        return loaded

    def _check(self, query: Query, current: Loaded) -> None:
        if query.k > self.settings.max_k or query.offset + query.k > MAX_DEPTH:
            raise ConfigError(
                f"k is {query.k} and offset {query.offset}: k may be {self.settings.max_k} and offset + k {MAX_DEPTH} "
                "at most. Narrow the query to see other images."
            )
        if query.where and query.where.strip():
            compile_filter(query.where, current.index.engine.table.schema, current.filterable)

    async def _parts(self, query: Query, current: Loaded) -> list[Part]:
        index, encoder = current.index, current.encoder
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


def _prepare(index: Index) -> None:
    """Measure what the first query of its kind would wait for; that query says what is wrong if something is."""
    try:
        index.snapshot().prepare()
    except Exception:
        log.warning("The scores of product and basic could not be calibrated.", exc_info=True)
