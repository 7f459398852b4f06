"""Clients of `mcip serve` that take little of the cores they share with it: one event loop, answers read afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mcip.data import read_table
from mcip.retrieval.ann.probe_texts import default_texts

K = 24
CLIENTS = 32
_BOUNDARY = "mcip-benchmark"
# Texts, images to upload and ids in ten requests.
SHARES = {"text": 6, "upload": 2, "id": 2}


def make_requests(table: Path, count: int) -> list[bytes]:
    """Different requests of HTTP: texts, uploads and ids, 6 : 2 : 2."""
    rows, texts = read_table(str(table)), default_texts()
    made = []
    for number in range(count):
        row = number * 7 % len(rows)
        if number % 10 < SHARES["text"]:
            text = f"{texts[number % len(texts)]}, number {number}"
            made.append(_get("/search?" + urllib.parse.urlencode({"text": text, "k": K})))
        elif number % 10 < SHARES["text"] + SHARES["upload"]:
            made.append(_upload(bytes(rows.image_source(row))))
        else:
            made.append(_get(f"/similar/{urllib.parse.quote(rows.ids[row], safe='')}?k={K}"))
    return made


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _upload(content: bytes) -> bytes:
    """A form with an image."""
    body = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
    body += content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n".encode() + body


@dataclass
class Tally:
    """What the clients saw: seconds and the body of each answer with status 200, by the request's number."""

    seconds: list[float] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    retries: int = 0


class Connection:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def ask_in_turn(port: int, requests: Sequence[bytes]) -> list[dict[str, float]]:
    """The scores by id that each request gets, one at a time."""

    async def run() -> list[dict[str, float]]:
        connection, found = Connection(port), []
        for request in requests:
            status, body = await connection.ask(request)
            assert status == 200, f"{request[:200]!r}: {status}"
            found.append(_scores(body))
        connection.close()
        return found

    return asyncio.run(run())


def _scores(body: bytes) -> dict[str, float]:
    return {hit["id"]: hit["score"] for hit in json.loads(body)["hits"]}


@contextlib.contextmanager
def load(
    port: int, requests: Sequence[bytes], expected: Sequence[dict[str, float]], retry: bool
) -> Iterator[dict[str, Any]]:
    """Clients that ask while the block runs; afterwards the block's dictionary holds what they saw.

    `client_cpu` is the seconds of CPU time that they took.
    """
    over, tally, seen = threading.Event(), Tally(), dict[str, Any]()
    cpu = []

    def run() -> None:
        began = time.thread_time()
        asyncio.run(_all_clients(port, requests, over, retry, tally))
        cpu.append(time.thread_time() - began)

    thread = threading.Thread(target=run)
    start = time.perf_counter()
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    seconds = time.perf_counter() - start
    wrong = sum(not right(_scores(body), expected[number]) for number, body in tally.answers)
    taken = np.array(tally.seconds)
    seen |= {
        "answers": len(taken),
        "requests_per_second": round(len(taken) / seconds, 1),
        "p50_ms": round(1e3 * float(np.quantile(taken, 0.5)), 2),
        "p99_ms": round(1e3 * float(np.quantile(taken, 0.99)), 2),
        "errors": len(tally.errors),
        "wrong": wrong,
        "retries": tally.retries,
        "client_cpu": cpu[0],
    }


async def _all_clients(port: int, requests: Sequence[bytes], over: threading.Event, retry: bool, tally: Tally) -> None:
    await asyncio.gather(*(_client(port, requests, over, seed, retry, tally) for seed in range(CLIENTS)))


async def _client(
    port: int, requests: Sequence[bytes], over: threading.Event, seed: int, retry: bool, tally: Tally
) -> None:
    """Ask one request after the other until it is over."""
    rng, connection = random.Random(seed), Connection(port)
    while not over.is_set():
        number = rng.randrange(len(requests))
        start = time.perf_counter()
        try:
            status, body = await asyncio.wait_for(connection.ask(requests[number]), 30)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            connection.close()
            status, body, reason = 0, b"", type(error).__name__
        else:
            reason = str(status)
        if status == 200:
            tally.seconds.append(time.perf_counter() - start)
            tally.answers.append((number, body))
        elif retry and status in (0, 503):
            tally.retries += 1
            await asyncio.sleep(0.05)
        else:
            tally.errors.append(reason)
    connection.close()


def right(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether an answer is the expected one, but for the rounding of forward passes of other sizes."""
    if len(found) != len(expected):
        return False
    scores = [np.sort(list(one.values())) for one in (found, expected)]
    shared = [abs(found[id] - expected[id]) for id in found.keys() & expected.keys()]
    # Images whose scores are equal but for rounding may stand in for each other at the end.
    return bool(np.abs(scores[0] - scores[1]).max() < 1e-4) and max(shared, default=1.0) < 1e-4
