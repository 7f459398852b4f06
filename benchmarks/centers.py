"""Class centers in shards: memory of each process, and how far loss and gradients are from those of one process.

python benchmarks/centers.py            1,000,000 centers of 768 dimensions on two processes; some minutes, 10 GB of
                                        memory and 3 GB of disk, which are freed again
python benchmarks/centers.py --quick    20,000 centers of 64 dimensions, seconds

One process computes `ArcMargin` of all centers in float32, and keeps its loss and its gradients in files. Then two
processes, connected by gloo, compute `ShardedArcMargin` with half of the centers each, and compare. Last, one process
computes it with a tenth of the centers in each step (partial FC). A step is forward and backward.

Differences are the largest of all elements, relative to the largest element of the whole's. Memory is what /proc says
of each process: the largest resident set, less that before the centers were drawn. Expected: differences below 1e-5,
and half of the memory in each of two processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from resident_memory import peak_gb
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mcip.core.processes import processes
from mcip.core.shards import local, rows_of_shard
from mcip.losses import ArcMargin
from mcip.stages.training import random_centers, sharded_arc_margin

SEED, MARGIN, SCALE, SAMPLE = 37, 0.1, 30.0, 0.1
# Rows of the gradients that are compared at once.
BLOCK = 65_536


class Size(NamedTuple):
    """How much is computed."""

    classes: int
    dim: int
    batch: int
    steps: int


def given(size: Size) -> tuple[Tensor, Tensor]:
    """The batch's embeddings and labels."""
    generator = torch.Generator().manual_seed(SEED)
    embeddings = torch.randn(size.batch, size.dim, generator=generator, requires_grad=True)
    return embeddings, torch.randint(size.classes, (size.batch,), generator=generator)


def whole(size: Size, folder: Path) -> dict[str, Any]:
    """All centers in this process; loss and gradients go to files."""
    before = peak_gb()
    with torch.device("meta"):
        loss = ArcMargin(size.classes, size.dim, MARGIN, SCALE)
    loss.weight = nn.Parameter(random_centers(size.classes, size.dim, SEED, range(size.classes)))
    figures = timed(loss, size, before)
    np.save(folder / "loss.npy", figures.pop("loss"))
    np.save(folder / "features.npy", figures.pop("features").numpy())
    assert loss.weight.grad is not None
    np.save(folder / "centers.npy", loss.weight.grad.numpy())
    return figures


def sharded(size: Size, folder: Path) -> dict[str, Any]:
    """The centers of this process, compared with those of the whole."""
    team, before = processes(), peak_gb()
    loss = sharded_arc_margin(
        size.classes, size.dim, MARGIN, SCALE, SEED, None, sample=1, sharded=True, device=torch.device("cpu")
    )
    figures = timed(loss, size, before)
    rows = rows_of_shard(size.classes, team)
    expected = np.load(folder / "centers.npy", mmap_mode="r")
    assert loss.weight.grad is not None
    gradient = local(loss.weight.grad).numpy()
    difference = largest = 0.0
    for start in range(0, len(gradient), BLOCK):
        block = expected[rows.start + start : rows.start + start + len(gradient[start : start + BLOCK])]
        difference = max(difference, float(np.abs(gradient[start : start + BLOCK] - block).max()))
        largest = max(largest, float(np.abs(block).max()))
    found = team.largest(torch.tensor([difference, largest])).tolist()
    features, value = figures.pop("features").numpy(), figures.pop("loss")
    expected_features, expected_loss = np.load(folder / "features.npy"), float(np.load(folder / "loss.npy"))
    return figures | {
        "differences": {
            "loss": abs(value - expected_loss) / expected_loss,
            "gradient_of_features": float(np.abs(features - expected_features).max() / np.abs(expected_features).max()),
            "gradient_of_centers": found[0] / found[1],
        }
    }


def partial(size: Size, folder: Path) -> dict[str, Any]:
    """A sample of the centers in each step, in one process."""
    before = peak_gb()
    loss = sharded_arc_margin(
        size.classes, size.dim, MARGIN, SCALE, SEED, None, sample=SAMPLE, sharded=False, device=torch.device("cpu")
    )
    figures = timed(loss, size, before)
    return {name: figure for name, figure in figures.items() if name not in ("loss", "features")}


def timed(loss: Any, size: Size, before: float) -> dict[str, Any]:
    """Forward and backward several times: the fastest step, the memory, and the loss and gradient of the last step."""
    embeddings, labels = given(size)
    generator = torch.Generator().manual_seed(SEED)
    seconds = []
    for _ in range(size.steps):
        loss.weight.grad = embeddings.grad = None
        since = time.perf_counter()
        if not isinstance(loss, ArcMargin):
            loss.draw(generator)
        value = loss(embeddings, labels)
        value.backward()
        seconds.append(time.perf_counter() - since)
    assert embeddings.grad is not None
    held = local(loss.weight.detach())
    return {
        "loss": value.item(), "features": embeddings.grad, "ms": round(1000 * min(seconds), 1),
        "centers_gb": held.nbytes / 1e9, "centers": len(held), "peak_gb": round(peak_gb() - before, 3),
    }  # fmt: skip


def run(part: Any, count: int, threads: int, size: Size, folder: Path) -> list[dict[str, Any]]:
    """The figures of a part, by rank, computed in this many new processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    team = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        environment = {**team, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
        process = context.Process(target=_enter, args=(part, environment, threads, size, folder, sender))
        process.start()
        sender.close()
        started.append((process, receiver))
    figures = [receiver.recv() for _, receiver in started]
    for process, _ in started:
        process.join()
    return figures


def _enter(part: Any, environment: dict[str, str], threads: int, size: Size, folder: Path, figures: Connection) -> None:
    os.environ.update(environment)
    torch.set_num_threads(threads)
    figures.send(part(size, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 centers of 64 dimensions")
    parser.add_argument("--classes", type=int, help="[1,000,000]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    classes, dim = (20_000, 64) if options.quick else (1_000_000, 768)
    size = Size(options.classes or classes, dim, options.batch, options.steps)
    threads = max(2, torch.get_num_threads()) // 2 * 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (one,) = run(whole, 1, threads, size, folder)
        halves = run(sharded, 2, threads // 2, size, folder)
    (sample,) = run(partial, 1, threads, size, Path())
    shown = Table("", "centers held", "their GB", "memory GB", "ms a step", title=f"{size}")
    rows = [("whole", one), *((f"process {rank} of 2", half) for rank, half in enumerate(halves)),
            (f"{SAMPLE:.0%} of the centers", sample)]  # fmt: skip
    for title, figures in rows:
        columns = f"{figures['centers']:,}", f"{figures['centers_gb']:.3f}", f"{figures['peak_gb']:.3f}"
        shown.add_row(title, *columns, f"{figures['ms']:.1f}")
    console = Console()
    console.print(shown)
    for what, difference in halves[0]["differences"].items():
        console.print(f"largest relative difference of the {what.replace('_', ' ')}: {difference:.1e}")
    print(json.dumps({**size._asdict(), "quick": options.quick, "whole": one, "sharded": halves, "partial": sample}))


if __name__ == "__main__":
    main()
