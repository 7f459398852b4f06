"""Queries that come at the same time, gathered into batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls a function over batches for callers that each have one item.

    The first item waits a moment for others. While the function runs, items gather, and all of them make the next
    batch. Used in one event loop only.
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Sequence[Result]],
        executor: Executor,
        batch_size: int,
        window: float,
    ) -> None:
        """Nothing runs yet.

        Args:
            function: Takes a batch, returns a result for each item in order.
            executor: Where it runs.
            batch_size: Items per batch at most.
            window: Seconds that the first item waits.
        """
        self._function = function
        self._executor = executor
        self._batch_size = batch_size
        self._window = window
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The function's result for this item; what it raises is raised for every item of the batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            await asyncio.sleep(self._window)
            while batch := self._next():
                await self._run(batch)
        finally:
            self._worker = None

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The items of the next batch, without those that nobody waits for any more."""
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._batch_size:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._function, [item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
