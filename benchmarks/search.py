"""Search at a million vectors: mcip and its peers on the same vectors, recall@10 of image and text queries.

python benchmarks/search.py                       about two hours on two cores; 12 GB of memory, 10 GB of disk
python benchmarks/search.py --quick               about two minutes: 20,000 x 128
python benchmarks/search.py --only clustered --peers mcip usearch     a part of it
MCIP_MILVUS_URI=http://127.0.0.1:19530 python benchmarks/search.py ...      with a server of Milvus beside the others

`clustered` are synthetic embeddings, `real` those of the tables given with `--tables`, images and captions, by
`--model`, repeated with noise; see `search_vectors.py`. An image query is an image that is not indexed, a text query
lies far from all images. Every side is built in one process and searched in another, one query at a time. A side
takes for each kind of query the narrowest search that finds 95 % of the ten neighbours of 200 queries; mcip chooses by
its own sample of image queries and those 200 texts. Then 1,000 other queries are measured, or as many as fit into
`--seconds`. `mcip` is measured end to end through `Index.search` but for the model's forward pass, metadata and all.
`open_seconds` is what opening takes, `memory` what the process grows by when it opens and searches, pages of mapped
files included, and `disk` everything that search needs. Results are kept in `--work`, and a run that is started again
resumes with what is missing.

`engine_ms` is what a query takes in the engine, of it `graph_ms` in the graph and `rescoring_ms` for comparing what it
finds with the stored vectors; `around_engine_ms` is the rest of `Index.search`. All are medians. `server_mb` is the
memory of a server of Milvus on this machine.

The aims: mcip takes at most 0.6 of the time of usearch and of faiss-hnsw for both kinds of query, at most 0.1 ms of it
around the engine, and its index at most 1,000 bytes an image. `mcip_vs` holds the ratios.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from search_engines import ENGINES, Engine, Milvus
from search_vectors import KINDS, VECTORS, Bench, Data, K, Queries, Vectors, bench

from mcip.core.files import write_json

TARGET = 0.95
WARM = 20
EQUAL = 1e-5  # cosines that differ by less count as equal


def resident() -> dict[str, float]:
    """Memory of this process in MB: all of it, and what is not pages of files; without the vectors to compare with."""
    sizes, path = {"Rss": 0.0, "Anonymous": 0.0}, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes and not path.endswith(VECTORS):
            sizes[name] += int(rest.split()[0]) / 1e3
        elif "-" in line.split(" ")[0]:
            path = line
    return sizes


def recall(vectors: Vectors, query: Queries, found: Any, least: float) -> float:
    """The share of the ten neighbours that was found, by their products."""
    products = vectors[found[found >= 0]].astype(np.float32) @ query
    return min(int((products >= least - EQUAL).sum()), K) / K


def run_in_process(function: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{function.__name__} of {arguments[0]} ended with exit code {process.exitcode}.")


def build(name: str, work: Path, options: argparse.Namespace) -> None:
    """Build a side; `build.json` in its folder is its time."""
    data, folder = bench_of(work, options), work / name
    side = ENGINES[name](folder)
    start = time.perf_counter()
    side.prepare(data.vectors)
    prepared = time.perf_counter()
    side.build(data.vectors, data.tried["text"])
    facts = {"prepare_seconds": prepared - start, "build_seconds": time.perf_counter() - prepared}
    write_json(folder / "build.json", {name: round(value, 1) for name, value in facts.items()})


def search(name: str, work: Path, options: argparse.Namespace) -> None:
    """Measure a side; `search.json` in its folder is the result."""
    data, folder = bench_of(work, options), work / name
    side = ENGINES[name](folder)
    before = resident()
    start = time.perf_counter()
    side.open()
    result: dict[str, Any] = {"open_seconds": round(time.perf_counter() - start, 2)}
    for kind in KINDS:
        width = narrowest(side, kind, data.vectors, data.tried[kind], data.tried_least[kind], options.seconds)
        milliseconds, found = [], []
        until, parts = time.perf_counter() + options.seconds, getattr(side, "seconds", {})
        for seconds in parts.values():
            seconds.clear()
        for query in data.queries_by_kind[kind]:
            start = time.perf_counter()
            found.append(side.search(query, kind, width))
            milliseconds.append(1e3 * (time.perf_counter() - start))
            if time.perf_counter() > until:
                break
        recalls = map(recall, [data.vectors] * len(found), data.queries_by_kind[kind], found, data.least_by_kind[kind])
        result[kind] = {
            "recall": round(float(np.mean(list(recalls))), 4),
            "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
            "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
            "queries": len(found),
            "width": width,
        }
        # A part that is passed once by every query: its median, and what is left of the query beside the engine.
        once = {part: np.multiply(seconds, 1e3) for part, seconds in parts.items() if len(seconds) == len(found)}
        result[kind] |= {f"{part}_ms": round(float(np.median(each)), 3) for part, each in once.items()}
        if "engine" in once:
            result[kind]["around_engine_ms"] = round(float(np.median(np.subtract(milliseconds, once["engine"]))), 3)
    grown = {key: round(value - before[key]) for key, value in resident().items()}
    result |= {"memory_mb": grown["Rss"], "anonymous_mb": grown["Anonymous"]}
    if isinstance(side, Milvus):
        result["server_mb"] = side.server_mb()
    write_json(folder / "search.json", result)


def narrowest(side: Engine, kind: str, vectors: Vectors, queries: Queries, least: Queries, seconds: float) -> int:
    """The narrowest search that reaches the target, or the widest that can be tried in the time."""
    until = time.perf_counter() + seconds
    for query in queries[:WARM]:
        side.search(query, kind, side.widths[0])
    for width in side.widths:
        recalls = []
        for query, tenth in zip(queries, least, strict=True):
            recalls.append(recall(vectors, query, side.search(query, kind, width), tenth))
            if time.perf_counter() > until and len(recalls) >= WARM:
                break
        if np.mean(recalls) >= TARGET or time.perf_counter() > until:
            break
    return width


def bench_of(work: Path, options: argparse.Namespace) -> Bench:
    data: Data = "real" if work.name.startswith("real") else "clustered"
    return bench(data, options.size, options.dim, options.tables, options.model, work)


def measure(name: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build and search a side, or read what was measured before."""
    kept, folder = work / f"{name}.json", work / name
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    if not (folder / "build.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run_in_process(build, name, work, options)
    run_in_process(search, name, work, options)
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    result = {"disk_mb": round(sum(path.stat().st_size for path in files) / 1e6)}
    for part in ("build", "search"):
        result |= json.loads((folder / f"{part}.json").read_text())
    write_json(kept, result)
    if not options.keep:
        shutil.rmtree(folder)
    return result


def show(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    for data, sides in results.items():
        table = Table(title=f"{data}: {options.size:,} x {options.dim}, recall@{K}")
        for heading in (
            "",
            "build s",
            "disk MB",
            "memory MB",
            *(f"{kind} {what}" for kind in KINDS for what in _SHOWN),
        ):
            table.add_column(heading, justify="right" if heading else "left")
        for name, side in sides.items():
            size = (f"{side['build_seconds']:,.0f}", f"{side['disk_mb']:,}", f"{side['memory_mb']:,}")
            numbers = (side[kind][key] for kind in KINDS for key in ("recall", "p50_ms", "p99_ms"))
            table.add_row(name, *size, *(f"{number:.3g}" for number in numbers))
        Console(width=130).print(table)


_SHOWN = ("recall", "p50 ms", "p99 ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors [1,000,000]")
    parser.add_argument("--dim", type=int, default=768, help="their dimension [768]")
    parser.add_argument("--only", nargs="+", choices=("clustered", "real"), help="these vectors [both, if --tables]")
    parser.add_argument("--peers", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="these sides [all]")
    parser.add_argument("--tables", nargs="+", default=[], help="what mcip.read_table takes, for real vectors")
    parser.add_argument("--model", default="toyshop", help="embeds them [toyshop]")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-search"), help="where results are kept")
    parser.add_argument("--seconds", type=float, default=60, help="of queries, per side and kind [60]")
    parser.add_argument("--keep", action="store_true", help="keep the indexes, not only the results")
    parser.add_argument("--quick", action="store_true", help="20,000 x 128, 2 seconds per side and kind")
    options = parser.parse_args()
    if options.quick:
        options.size, options.dim, options.seconds = 20_000, 128, 2.0
    if "MCIP_MILVUS_URI" not in os.environ:
        options.peers = [name for name in options.peers if name != "milvus"]
    results: dict[str, dict[str, Any]] = {}
    for data in options.only or (["clustered", "real"] if options.tables else ["clustered"]):
        work = options.work / f"{data}-{options.size}x{options.dim}"
        bench_of(work, options)
        for name in options.peers:
            Console(stderr=True).print(f"{data} {name} ...")
            results.setdefault(data, {})[name] = measure(name, work, options)
    show(results, options)
    for name, sides in results.items():
        if "mcip" in sides:
            ratios = {
                peer: {kind: round(sides["mcip"][kind]["p50_ms"] / side[kind]["p50_ms"], 2) for kind in KINDS}
                for peer, side in sides.items()
                if peer != "mcip"
            }
            Console().print(f"{name}: mcip's p50 as a share of its peers': {ratios}")
            sides["mcip"] = {**sides["mcip"], "mcip_vs": ratios}
    facts = {"size": options.size, "dim": options.dim, "cores": os.cpu_count(), "quick": options.quick}
    print(json.dumps({**facts, "results": results}))


if __name__ == "__main__":
    main()
