"""Throughput of `mcip.index` against the bare model on pixels in memory, in one run.

python benchmarks/index.py --tables fashion.parquet           20,000 images, about 20 minutes on two cores
python benchmarks/index.py --tables fashion.parquet --quick   1,000 images, about a minute
python benchmarks/index.py --tables fashion.parquet --busy    for busy cores: one thread, CPU time
python benchmarks/index.py --bare                             the model alone, by backend; CPU time, about two minutes

`index` is the whole of the call: loading the model, listing, reading, hashing, decoding, embedding, writing the table,
and opening it for search. `bare` is the model on batches of finished pixels, before and after it. The weights are
random: they do not matter for the speed. The aim is at least 0.9 of bare.

`onnx` is the same call with --backend onnx, after an export that is not counted; `onnx_vs_torch` is its images per
second over those of `index`.

`--bare` embeds the same random pixels, in batches of 64, by PyTorch, by ONNX Runtime, and by ONNX Runtime in int8, in
turn: images per second of CPU time of one core, the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mcip import models, read_table
from mcip.core.choices import Backend, Quantize
from mcip.embeddings.encode import encode_pixels
from mcip.models.onnx_model import OnnxModel
from mcip.stages.export import export
from mcip.stages.index import index as build_index

BATCH = 256
WANTED = 0.9


def write_images(tables: list[str], count: int, folder: Path) -> int:
    """Write the first images of some tables as files; how many there were."""
    folder.mkdir()
    written = 0
    for table in map(read_table, tables):
        for row in range(min(len(table), count - written)):
            source = table.image_source(row)
            content = source if isinstance(source, bytes) else source.read_bytes()
            (folder / f"{written:06d}.jpg").write_bytes(content)
            written += 1
    return written


def bare(model: models.Model, batches: int, clock: Any) -> float:
    """Images per second of the model on pixels in memory."""
    transform = model.transform("model")
    side = transform.prepared_size
    pixels = transform.finish(torch.randint(256, (BATCH, 3, side, side), dtype=torch.uint8))
    encode_pixels(model, pixels)
    start = clock()
    for _ in range(batches):
        encode_pixels(model, pixels)
    return batches * BATCH / float(clock() - start)


def by_backend(name: str, rounds: int = 5, batch: int = 64) -> dict[str, Any]:
    """Images per second of CPU time of the model alone."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = models.create(name)
        saved = models.save(model, folder / "model")
        transform = model.transform("model")
        side = transform.prepared_size
        pixels = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8)
        finished = transform.finish(pixels)
        ways: dict[str, Callable[[], object]] = {"torch": lambda: encode_pixels(model, finished)}
        forms: tuple[tuple[str, Quantize], ...] = (("onnx", "none"), ("onnx int8", "int8"))
        for label, quantize in forms:
            export(saved, folder / label, format="onnx", quantize=quantize)
            ways[label] = partial(OnnxModel(folder / label).embed_prepared, pixels.numpy(), batch)
        seconds: dict[str, list[float]] = {label: [] for label in ways}
        for number in range(rounds + 1):
            for label, way in ways.items():
                start = time.process_time()
                way()
                # The first time memory is set up.
                seconds[label] += [time.process_time() - start] if number else []
    return {label: round(batch / statistics.median(each), 2) for label, each in seconds.items()}


def measure(name: str, tables: list[str], count: int, clock: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        count = write_images(tables, count, folder / "photos")
        model = models.create(name)
        saved = models.save(model, folder / "model")
        batches = max(2, count // (4 * BATCH))
        onnx = export(saved, folder / "onnx", format="onnx")
        rates = [bare(model, batches, clock)]
        seconds = {}
        sides: tuple[tuple[Backend, Any], ...] = (("torch", saved), ("onnx", onnx))
        for backend, source in sides:
            start = clock()
            build_index(
                str(folder / "photos"), str(folder / f"{backend}.lance"), model=str(source), backend=backend,
                batch_size=BATCH, device="cpu",
            )  # fmt: skip
            seconds[backend] = clock() - start
        rates.append(bare(model, batches, clock))
    bare_rate = sum(rates) / len(rates)
    return {
        "images": count,
        "index_per_second": round(count / seconds["torch"], 2),
        "onnx_per_second": round(count / seconds["onnx"], 2),
        "onnx_vs_torch": round(seconds["torch"] / seconds["onnx"], 3),
        "bare_per_second": round(bare_rate, 2),
        "bare_each": [round(rate, 2) for rate in rates],
        "ratio": round(count / seconds["torch"] / bare_rate, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=[], help="what mcip.read_table takes")
    parser.add_argument("--model", action="append", help="an open_clip name or a model folder [ViT-B-32]")
    parser.add_argument("--images", type=int, default=20_000, help="images [20,000]")
    parser.add_argument("--quick", action="store_true", help="1,000 images")
    parser.add_argument("--busy", action="store_true", help="one thread, and the CPU time that it takes")
    parser.add_argument("--bare", action="store_true", help="the model alone, by backend")
    options = parser.parse_args()
    names = options.model or ["ViT-B-32"]
    if options.bare:
        print(json.dumps({"images_per_cpu_second": {name: by_backend(name) for name in names}}))
        return
    if not options.tables:
        parser.error("--tables or --bare is needed")
    if options.busy:
        torch.set_num_threads(1)
    clock = time.process_time if options.busy else time.perf_counter
    count = 1000 if options.quick else options.images
    results = {name: measure(name, options.tables, count, clock) for name in names}
    table = Table("model", "images", "index / s", "onnx / s", "bare / s", "ratio", "wanted")
    for name, result in results.items():
        rates = (f"{result[side]:.1f}" for side in ("index_per_second", "onnx_per_second", "bare_per_second"))
        table.add_row(name, f"{result['images']:,}", *rates, f"{result['ratio']:.2f}", f">= {WANTED}")
    Console().print(table)
    facts = {"threads": torch.get_num_threads(), "clock": clock.__name__, "quick": options.quick}
    print(json.dumps({**facts, "models": results}))


if __name__ == "__main__":
    main()
