"""How long `mcip search` takes from the shell, with the start of the process: by ONNX Runtime and by PyTorch.

python benchmarks/cold.py               about two minutes on two cores: 10,000 random vectors
python benchmarks/cold.py --quick       200 vectors, one process of each kind

The index holds random vectors of unit length under the identity of the Toyshop base model, whose ONNX model is exported
beside it. Each side is started anew for every search, in turns; the median counts. `onnx_vs_torch` is the ratio of the
medians: it says more than either on a machine that does other work.

The aim on two cores: 1.2 s by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

import mcip
from mcip.models import Model
from mcip.retrieval.encoder import beside_index
from mcip.retrieval.identity import Identity
from mcip.retrieval.index import Index
from mcip.retrieval.table import create_table, schema_of, vectors_array

SIDES = ("onnx", "torch")
COMMAND = [sys.executable, "-m", "mcip", "search"]


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
        seconds = measure(uri, onnx, repeats)
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


def measure(uri: str, onnx: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each process. One of each side goes first and is not counted: it fills the file system's cache."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    models = {"onnx": str(onnx), "torch": "toyshop"}
    answers = set()
    for turn in range(repeats + 1):
        for side in SIDES:
            command = [*COMMAND, uri, "a red mug", "-k", "5", "--model", models[side], "--backend", side]
            start = time.perf_counter()
            done = subprocess.run([*command, "--output", "paths"], capture_output=True, text=True, check=True)
            if turn:
                seconds[side].append(time.perf_counter() - start)
            answers.add(done.stdout)
    if len(answers) != 1:
        raise SystemExit(f"The sides found different images: {answers}")
    return seconds


def show(seconds: dict[str, list[float]], rows: int) -> None:
    """Print a table, and the figures as one line of JSON."""
    table = Table("by", "median s", "least s", "most s", title=f"mcip search from the shell, {rows:,} images")
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    for side, times in seconds.items():
        table.add_row(side, *(f"{value:.2f}" for value in (medians[side], min(times), max(times))))
    Console().print(table)
    print(json.dumps({"rows": rows, "seconds": medians, "onnx_vs_torch": medians["onnx"] / medians["torch"]}))


if __name__ == "__main__":
    main()
