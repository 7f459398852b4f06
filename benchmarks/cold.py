"""How long `mcip search` takes from the shell, with the start of the process: by a server, ONNX Runtime and PyTorch.

python benchmarks/cold.py               about two minutes on two cores: 10,000 random vectors
python benchmarks/cold.py --quick       200 vectors, one process of each kind

The index holds random vectors of unit length under the identity of the Toyshop base model, whose ONNX model is exported
beside it. Each side is started anew for every search, in turns; the median counts. `onnx_vs_torch` is the ratio of the
medians: it says more than either on a machine that does other work.

`server` asks an `mcip serve` of the same index, which it finds by itself. `rclip`, where that command is installed,
searches as many images of one colour, which it has indexed before. `cpu_seconds` is what a process itself computes.

The aims on two cores: 1.2 s by ONNX Runtime, 0.4 s by a server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console
from rich.table import Table

import mcip
from mcip.models import Model
from mcip.retrieval.encoder import beside_index
from mcip.retrieval.identity import Identity
from mcip.retrieval.index import Index
from mcip.retrieval.table import create_table, schema_of
from mcip.retrieval.vector_column import vectors_array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="vectors in the index")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind")
    parser.add_argument("--onnx", help="an ONNX model of toyshop that is exported already")
    parser.add_argument("--quick", action="store_true", help="200 vectors, one process of each kind")
    options = parser.parse_args()
    rows, repeats = (200, 1) if options.quick else (options.rows, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "random.lance")
        model = mcip.load("toyshop")
        write_index(uri, model, rows)
        onnx = Path(options.onnx) if options.onnx else beside_index(uri)
        if not options.onnx:
            mcip.export(model, onnx, format="onnx")
        seconds = measure(uri, onnx, repeats, rows)
    show(seconds, rows)


def write_index(uri: str, model: Model, rows: int) -> None:
    """Write an index of random vectors, and the files that make searching quick."""
    identity = Identity.new(
        model="toyshop", fingerprint=model.fingerprint, dim=model.embed_dim, transform="model", thumbnails=0
    )
    table = create_table(uri, schema_of(identity, pa.schema([])))
    vectors = np.random.default_rng(0).normal(size=(rows, model.embed_dim)).astype(np.float32)
    names = [f"{number:06}.jpg" for number in range(rows)]
    facts = {
        "id": names,
        "vector": vectors_array(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)),
        "path": [f"/photos/{name}" for name in names],
        "width": pa.array([640] * rows, pa.int32()),
        "height": pa.array([480] * rows, pa.int32()),
        "hash": [f"{number:064x}" for number in range(rows)],
        "stamp": names,
    }
    table.append(pa.table(facts, schema=table.schema))
    Index(uri, model)


@contextlib.contextmanager
def serving(uri: str, onnx: Path) -> Iterator[None]:
    """Serve the index while the block runs."""
    command = [sys.executable, "-m", "mcip", "serve", uri, "--port", "0", "--model", str(onnx), "--backend", "onnx"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "can be searched now" in line:
                    break
            yield
        finally:
            process.send_signal(signal.SIGINT)


def commands(uri: str, onnx: Path) -> dict[str, list[str]]:
    """What each side runs."""
    search = [sys.executable, "-m", "mcip", "search", uri, "a red mug", "-k", "5", "--output", "paths"]
    sides = {"server": search}
    for side, model in (("onnx", str(onnx)), ("torch", "toyshop")):
        sides[side] = [*search, "--model", model, "--backend", side]
    if shutil.which("rclip"):
        sides["rclip"] = ["rclip", "--no-indexing", "--filepath-only", "--top", "5", "a red mug"]
    else:
        Console(stderr=True).print("rclip is not installed: it is not measured.")
    return sides


def measure(uri: str, onnx: Path, repeats: int, rows: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and those of the processor, of each process.

    One of each side goes first and is not counted: it fills the file system's cache, and rclip's index.
    """
    images = Path(uri).with_name("images")
    sides = commands(uri, onnx)
    if "rclip" in sides:
        images.mkdir()
        for number in range(rows):
            Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 99)).save(images / f"{number:06}.jpg")
        subprocess.run(["rclip", "a red mug"], cwd=images, capture_output=True, check=True)
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    answers = set()
    with serving(uri, onnx):
        for turn in range(repeats + 1):
            for side, command in sides.items():
                start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                folder = images if side == "rclip" else None
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if turn:
                    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    seconds[side].append((time.perf_counter() - start, processor))
                if side != "rclip":
                    answers.add(done.stdout)
                if side == "server" and "Answered by the server" not in done.stderr:
                    raise SystemExit(f"The server did not answer: {done.stderr}")
    if len(answers) != 1:
        raise SystemExit(f"The sides found different images: {answers}")
    return seconds


def show(seconds: dict[str, list[tuple[float, float]]], rows: int) -> None:
    """Print a table, and the figures as one line of JSON."""
    table = Table("by", "median s", "least s", "most s", "CPU s", title=f"mcip search from the shell, {rows:,} images")
    medians = {side: statistics.median(wall for wall, _ in times) for side, times in seconds.items()}
    processor = {side: statistics.median(cpu for _, cpu in times) for side, times in seconds.items()}
    for side, times in seconds.items():
        walls = [wall for wall, _ in times]
        figures = (medians[side], min(walls), max(walls), processor[side])
        table.add_row(side, *(f"{value:.2f}" for value in figures))
    Console().print(table)
    ratios = {f"{side}_vs_torch": medians[side] / medians["torch"] for side in medians if side != "torch"}
    print(json.dumps({"rows": rows, "seconds": medians, "cpu_seconds": processor, **ratios}))


if __name__ == "__main__":
    main()
