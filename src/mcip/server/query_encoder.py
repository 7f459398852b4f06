"""Embedding the parts of queries: decoding apart from the model, one model thread, batches, texts remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import UnreadableImage
from mcip.data import decode
from mcip.retrieval.encoder import Encoder, Prepared
from mcip.server.batching import Batcher
from mcip.server.metrics import Metrics
from mcip.server.settings import Settings

Vector: TypeAlias = NDArray[np.float32]


class QueryEncoder:
    """Embeds texts and uploaded images of many clients. Used in one event loop only."""

    def __init__(self, encoder: Encoder, settings: Settings, metrics: Metrics, workers: ThreadPoolExecutor) -> None:
        """Start no work yet.

        Args:
            encoder: The index's model.
            settings: Limits.
            metrics: Where batches and cache hits are counted.
            workers: Threads that decode; each holds one image, so they bound the memory.
        """
        self._encoder = encoder
        self._settings = settings
        self._metrics = metrics
        self._workers = workers
        # One thread: two forward passes at a time would only take the processor from each other.
        self._model_thread = ThreadPoolExecutor(1, "model")
        self._texts: Batcher[str, Vector] = Batcher(
            self._encode_texts, self._model_thread, settings.batch_size, settings.window
        )
        self._images: Batcher[Prepared, Vector] = Batcher(
            self._encode_images, self._model_thread, settings.batch_size, settings.window
        )
        # By text, the one used last at the end; a text that is being embedded is there already.
        self._known: OrderedDict[str, asyncio.Task[Vector]] = OrderedDict()

    async def text(self, text: str) -> Vector:
        """The embedding of a text, float32 (D,)."""
        task = self._known.get(text)
        self._metrics.cached_texts.labels("hit" if task else "miss").inc()
        if task is None:
            task = self._known[text] = asyncio.create_task(self._texts(text))
            if len(self._known) > self._settings.cached_texts:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(text)
        try:
            # A client that goes away does not take the embedding from the others that wait for it.
            return await asyncio.shield(task)
        except Exception:
            if self._known.get(text) is task:
                del self._known[text]
            raise

    async def image(self, content: bytes) -> Vector:
        """The embedding of an image's file, float32 (D,).

        Raises:
            UnreadableImage: It is no image, has too many pixels, or needs more memory than there is.
        """
        loop = asyncio.get_running_loop()
        return await self._images(await loop.run_in_executor(self._workers, self._prepare, content))

    def close(self) -> None:
        """Let the model's thread end."""
        self._model_thread.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, content: bytes) -> Prepared:
        try:
            return self._encoder.prepare(decode(content, self._settings.max_pixels))
        except MemoryError:
            raise UnreadableImage("there is not enough memory to decode it") from None

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        self._metrics.batches.labels("text").observe(len(texts))
        return list(self._encoder.texts(texts))

    def _encode_images(self, pixels: list[Prepared]) -> list[Vector]:
        self._metrics.batches.labels("image").observe(len(pixels))
        return list(self._encoder.prepared(pixels))
