"""`mcip serve` under load: throughput, latency and CPU time for many clients, and answers while it is restarted.

python benchmarks/serve.py            about 10 minutes on two cores
python benchmarks/serve.py --quick    about a minute

Toyshop's images are indexed with its base model, and a server process is asked by clients on the loopback, each of
which waits for an answer before it asks again: 6 of 10 requests are texts, 2 images to upload, 2 ids of the index.
Each part is measured with PyTorch, with ONNX Runtime, and with ONNX Runtime in a process for each core (`processes`).
`onnx_vs_torch` and `processes_vs_torch` hold the ratios of requests per second and of p99 under load, in one run;
`vs_before` is the requests per second by those processes over 338, which two idle cores answered before there were any:
1.5 is the aim, with a p99 that is no higher than PyTorch's.

Clients and server share the cores, and perhaps other processes do, so CPU time tells more than requests per second:
that of the server for a request, of the clients, and of the bare forward passes (tokenizing, the model) that a request
needs at the batch sizes that the server reached. What the server adds is the difference.

The answers are compared with those that the same requests got one at a time, before. In `load` each status but 200 is
an error, and so is a connection that is cut. In `restart` the server is ended by SIGTERM and started again while
clients keep sending requests; they try again when the connection is refused or cut and when the answer is 503, and
every answer that they get must be right.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table
from serve_clients import CLIENTS, ask_in_turn, load, make_requests

from mcip.core.choices import Backend
from mcip.data import decode, read_table
from mcip.retrieval.ann.probe_texts import default_texts
from mcip.retrieval.encoder import beside_index
from mcip.retrieval.index import open_index
from mcip.stages.export import export
from mcip.stages.index import index as build_index
from mcip.toyshop.tables import Slice, write_slice

# Requests per second of two idle cores by PyTorch, before ONNX Runtime embedded queries.
BEFORE = 338
# How queries are embedded, and in how many processes.
WAYS: dict[str, tuple[Backend, int]] = {
    "torch": ("torch", 1), "onnx": ("onnx", 1), "processes": ("onnx", os.cpu_count() or 1),
}  # fmt: skip


class Server:
    """A server process that can be ended and started again on the same port."""

    def __init__(self, db: Path, backend: Backend, processes: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._command = [sys.executable, "-m", "mcip", "serve", str(db), "--port", str(self.port), "--device", "cpu"]
        self._command += ["--backend", backend, "--processes", str(processes)]
        self.start()

    def start(self) -> None:
        """Start a process; it answers some seconds later."""
        self._process = subprocess.Popen(self._command)

    def wait(self) -> None:
        """Wait until it answers."""
        while True:
            assert self._process.poll() is None, "the server ended"
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process as a service manager does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def cpu_seconds(self) -> float:
        """CPU time of its processes so far."""
        first = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        return float(sum(one.user + one.system for one in times))

    def numbers(self) -> dict[str, float]:
        """What /metrics says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 s of load instead of 60, a small index")
    parser.add_argument("--seconds", type=float, help="of load")
    quick, seconds = vars(parser.parse_args()).values()
    seconds, products = seconds or (5.0 if quick else 60.0), 60 if quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        part = Slice("served", stream=91, products=products, images=10, captions=1)
        table, db = write_slice(part, Path(folder) / "served.parquet"), Path(folder) / "photos.lance"
        build_index(str(table), str(db), model="toyshop", thumbnails=192, device="cpu")
        export("toyshop", beside_index(str(db)), format="onnx")
        requests = make_requests(table, 200 if quick else 2000)
        found = {}
        for way, (backend, processes) in WAYS.items():
            found[way] = measure(Server(db, backend, processes), requests, seconds)
            found[way]["cpu"] |= bare(db, backend, table, found[way])
    print_tables(found)
    facts = {"clients": CLIENTS, "seconds": seconds, "images": 10 * products, "cores": os.cpu_count()}
    ratios = {f"{way}_vs_torch": compared(found[way]["load"], found["torch"]["load"]) for way in list(WAYS)[1:]}
    before = round(found["processes"]["load"]["requests_per_second"] / BEFORE, 3)
    print(json.dumps({**facts, **found, **ratios, "vs_before": before}))


def compared(load: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Ratios of two ways."""
    return {name: round(load[name] / other[name], 3) for name in ("requests_per_second", "p99_ms")}


def print_tables(found: dict[str, dict[str, Any]]) -> None:
    """Throughput and latency; CPU time."""
    parts = Table("way", "part", "answers", "requests/s", "p50 ms", "p99 ms", "errors", "wrong", "asked again")
    cpu = Table("way", "CPU ms a request: server", "of it bare forward", "clients", "texts a pass", "images a pass")
    for way, numbers in found.items():
        for name in ("load", "restart"):
            parts.add_row(way, name, *(f"{value:,}" for value in numbers[name].values()))
        spent, sizes = numbers["cpu"], numbers["queries_per_forward_pass"]
        row = [spent[f"{one}_ms"] for one in ("server", "forward", "clients")] + [sizes["text"], sizes["image"]]
        cpu.add_row(way, *map(str, row))
    for table in (parts, cpu):
        Console(width=110).print(table)


def measure(server: Server, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Both parts."""
    try:
        server.wait()
        expected = ask_in_turn(server.port, requests)
        # Texts that were embedded before are remembered: a server without that is loaded.
        server.stop()
        server.start()
        server.wait()
        began = server.cpu_seconds()
        with load(server.port, requests, expected, retry=False) as loaded:
            time.sleep(seconds)
        spent = server.cpu_seconds() - began
        numbers = server.numbers()
        with load(server.port, requests, expected, retry=True) as restarted:
            time.sleep(seconds / 4)
            server.stop()
            server.start()
            server.wait()
            time.sleep(seconds / 4)
    finally:
        server.stop()
    sums, counts = (
        {kind: numbers[f'mcip_batch_size_{what}{{kind="{kind}"}}'] for kind in ("text", "image")}
        for what in ("sum", "count")
    )
    restarted.pop("client_cpu")
    cpu = {
        "server_ms": round(1e3 * spent / loaded["answers"], 2),
        "clients_ms": round(1e3 * loaded.pop("client_cpu") / loaded["answers"], 2),
        "embedded_per_request": {kind: round(total / loaded["answers"], 3) for kind, total in sums.items()},
    }
    per_pass = {kind: round(sums[kind] / counts[kind], 2) for kind in sums}
    return {"load": loaded, "restart": restarted, "cpu": cpu, "queries_per_forward_pass": per_pass}


def bare(db: Path, backend: Backend, table: Path, measured: dict[str, Any]) -> dict[str, float]:
    """CPU milliseconds of forward passes alone: of a text, of an image, and of what a request has of both."""
    encoder, rows = open_index(str(db), device="cpu", backend=backend).encoder, read_table(str(table))
    images = [encoder.prepare(decode(bytes(rows.image_source(row)))) for row in range(100)]
    found = {}
    kinds: tuple[tuple[str, Callable[[Any], object], list[Any]], ...] = (
        ("text", encoder.texts, default_texts()), ("image", encoder.prepared, images),
    )  # fmt: skip
    for kind, embed, items in kinds:
        size = max(1, round(measured["queries_per_forward_pass"][kind]))
        batches = [items[at : at + size] for at in range(0, len(items) - size + 1, size)]
        embed(batches[0])
        start = time.process_time()
        for batch in batches:
            embed(batch)
        found[kind] = 1e3 * (time.process_time() - start) / len(batches) / size
    total = sum(found[kind] * share for kind, share in measured["cpu"]["embedded_per_request"].items())
    return {"forward_ms": round(total, 2), **{f"forward_{kind}_ms": round(value, 3) for kind, value in found.items()}}


if __name__ == "__main__":
    main()
