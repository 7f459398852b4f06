"""Mining against its bare matrix product, and its memory as the captions grow.

python benchmarks/mining.py            some minutes on two cores; a minute on a GPU
python benchmarks/mining.py --quick    seconds, at a small size

`speed` searches the captions of a memory-mapped embeddings artefact for the nearest of each image, and multiplies the
same blocks without a search: in float32 on a CPU, in tf32 on a GPU, where both sides read host memory or, with
`--gallery device`, the GPU's. The aim: at most 1.3 times the product on two idle cores, at most 2 times on a GPU. The
result is compared with that of float32's products. `memory` searches 100,000 and 10,000,000 captions in processes of
their own, of 8 dimensions each: the peaks are to be the same. `--threads 2` is the default on a CPU; processor seconds
stand beside the clock's, for machines whose cores are busy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from resident_memory import resident
from rich.console import Console

from mcip.core.artefacts import Artefact
from mcip.core.blocks import blocks
from mcip.core.topk import topk
from mcip.embeddings.store import KIND, Embeddings, write_shard

K = 20
SHARD_ROWS = 16_384
GALLERY_BLOCK = {"cpu": 4096, "cuda": 16_384}
QUERY_BLOCK = {"cpu": 1024, "cuda": 32_768}


def vectors(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((rows, dim), np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def store(folder: Path, rows: int, dim: int) -> Embeddings:
    """An embeddings artefact of random unit vectors."""
    with Artefact.begin(folder, KIND, {"rows": rows, "dim": dim}) as artefact:
        for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
            some = vectors(min(SHARD_ROWS, rows - start), dim, shard)
            write_shard(folder, shard, some, [str(start + row) for row in range(len(some))])
        artefact.finish(dim=dim, rows=rows)
    return Embeddings(folder)


def measured(function: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start, busy = time.perf_counter(), time.process_time()
    function()
    wait()
    return time.perf_counter() - start, time.process_time() - busy


def bare(queries: torch.Tensor, gallery: Any, tf32: bool) -> None:
    """The products of the blocks that the search multiplies."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    size = QUERY_BLOCK[queries.device.type]
    out = queries.new_empty(min(size, len(queries)), GALLERY_BLOCK[queries.device.type])
    for _, block in blocks(gallery, GALLERY_BLOCK[queries.device.type], queries.device):
        for rows in queries.split(size):
            torch.mm(rows, block.T, out=out[: len(rows), : len(block)].view(len(rows), len(block)))
    torch.backends.cuda.matmul.allow_tf32 = False


def products(queries: torch.Tensor, gallery: torch.Tensor, rounds: int) -> dict[str, float]:
    """Seconds of the bare products of vectors that lie on the device, by precision."""
    halves = queries.bfloat16(), gallery.bfloat16()
    size, block = QUERY_BLOCK[queries.device.type], GALLERY_BLOCK[queries.device.type]

    def multiply(left: torch.Tensor, right: torch.Tensor, tf32: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for rows in left.split(size):
            for columns in right.split(block):
                torch.mm(rows, columns.T)
        torch.backends.cuda.matmul.allow_tf32 = False

    ways: dict[str, Callable[[], None]] = {
        "fp32": lambda: multiply(queries, gallery, False),
        "tf32": lambda: multiply(queries, gallery, True),
        "bf16": lambda: multiply(*halves, False),
    }
    found = {}
    for name, way in ways.items():
        way()
        found[name] = float(np.median([measured(way, queries.device)[0] for _ in range(rounds)]))
    return found


def speed(folder: Path, images: int, captions: int, dim: int, rounds: int, device: torch.device) -> dict[str, Any]:
    embeddings = store(folder / "speed", captions // SHARD_ROWS * SHARD_ROWS or captions, dim)
    queries = torch.from_numpy(vectors(images, dim, 1_000_000)).to(device)
    on_device = torch.from_numpy(embeddings.array()).to(device) if device.type == "cuda" else None
    galleries: dict[str, Callable[[], Any]] = {"host": embeddings.blocks}
    if on_device is not None:
        galleries["device"] = lambda: on_device
    result: dict[str, Any] = {"images": images, "captions": len(embeddings), "dim": dim, "k": K}
    expected = topk(queries, embeddings.blocks(), K, select=torch.float32)
    found = topk(queries, embeddings.blocks(), K)
    result["other_captions_than_float32"] = int((found[1] != expected[1]).sum())
    result["largest_difference"] = float((found[0] - expected[0]).abs().max())
    for name, gallery in galleries.items():
        times: dict[str, list[tuple[float, float]]] = {"product": [], "search": []}
        bare(queries, gallery(), tf32=True)
        for _ in range(rounds):
            times["product"].append(measured(lambda g=gallery: bare(queries, g(), tf32=True), device))  # type: ignore[misc]
            times["search"].append(measured(lambda g=gallery: topk(queries, g(), K), device))  # type: ignore[misc]
        ratios = [[s / max(p, 1e-9) for p, s in zip(*pair, strict=True)] for pair in zip(*times.values(), strict=True)]
        clock, busy = np.median(ratios, axis=0).tolist()
        result[name] = {
            "product_seconds": float(np.median([t for t, _ in times["product"]])),
            "search_seconds": float(np.median([t for t, _ in times["search"]])),
            "ratio": clock, "ratio_of_processor_seconds": busy,
        }  # fmt: skip
    on_device = torch.from_numpy(embeddings.array()) if on_device is None else on_device
    result["bare_product_seconds"] = products(queries, on_device, rounds)
    return result


def peak_gb(folder: Path, images: int) -> float:
    """The peak memory of a process that searches the artefact in `folder`."""
    command = [sys.executable, __file__, "--search", str(folder), "--images", str(images)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def search(folder: Path, images: int) -> None:
    torch.set_num_threads(2)
    embeddings = Embeddings(folder)
    topk(torch.from_numpy(vectors(images, embeddings.dim, 7)), embeddings.blocks(), K)
    print(resident("VmHWM") / 2**30)


def memory(folder: Path, sizes: tuple[int, int]) -> Iterator[tuple[str, float]]:
    for rows in sizes:
        store(folder / f"memory-{rows}", rows, 8)
        yield str(rows), peak_gb(folder / f"memory-{rows}", 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="on a CPU")
    parser.add_argument("--images", type=int, help="queries; 1,024 on a CPU, 32,768 on a GPU")
    parser.add_argument("--captions", type=int, help="262,144 on a CPU, 1,000,000 on a GPU")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.search:
        search(given.search, given.images)
        return
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    images, captions = (1024, 262_144) if device.type == "cpu" else (32_768, 1_000_000)
    sizes = (100_000, 10_000_000)
    if given.quick:
        images, captions, sizes = 256, 32_768, (20_000, 200_000)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
        found["speed"] = speed(
            Path(folder), given.images or images, given.captions or captions, given.dim, given.rounds, device
        )
        found["peak_gb"] = dict(memory(Path(folder), sizes))
    Console(stderr=True).print_json(data=found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
